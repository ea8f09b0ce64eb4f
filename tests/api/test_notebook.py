"""What notebooks and terminals show: short descriptions, escaped HTML, and progress."""

import html
import io
import re
import sys

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from nbclient import NotebookClient

import hsi_se
from hsi_se.cli.terminal import PlainLines, ProgressBar, show_progress
from hsi_se.progress import Silent
from hsi_se.scene.scene import make_palette
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.system.notebook import MOST_PIXELS
from tests.api.conftest import CONFIG
from tests.conftest import CPU

pytestmark = pytest.mark.usefixtures("quick_baseline")
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def scene():
    made = make_synthetic_scene(seed=0, rows=24, cols=26, bands=20)
    names = {label: f"{name} {EVIL}" for label, name in made.class_names.items()}
    return hsi_se.Scene.from_arrays(made.cube, made.labels, name=EVIL, class_names=names)


def read_picture(text: str) -> np.ndarray:
    import base64

    return imread(io.BytesIO(base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', text)[1])))


def test_descriptions_are_short_and_in_the_words_of_the_field(run, scene, evaluation):
    split, mapped = hsi_se.make_split(scene, CONFIG), hsi_se.map_scene(run, session=CPU)
    labelled, classes = (scene.labels > 0).sum(), len(scene.class_ids)
    assert repr(scene) == f"Scene({EVIL}: 24 × 26 pixels, 20 bands, {labelled} labelled pixels of {classes} classes)"
    sizes = len(split.train), len(split.val), len(split.test)
    assert repr(split) == "Split({} training, {} validation, {} test, 0 buffer pixels)".format(*sizes)
    assert repr(mapped) == f"ClassMap(24 × 26 pixels, {classes} classes)"
    accuracy = f"OA {100 * evaluation.overall_accuracy:.2f} %"
    assert repr(run) == f"Run({run}: {accuracy} on {EVIL}, {evaluation.outcome})"
    assert repr(evaluation) == str(evaluation)
    assert repr(evaluation).startswith(f"Evaluation({EVIL}: {accuracy}, AA ")
    assert "location floor" in repr(evaluation)
    for each in (scene, split, run, evaluation, mapped):
        assert len(repr(each).splitlines()) <= 3


def test_wavelengths_are_in_the_description_of_a_scene():
    scene = hsi_se.Scene.from_arrays(np.ones((2, 2, 3)) * np.arange(3), np.ones((2, 2)), wavelengths_nm=(450, 550, 650))
    assert "3 bands from 450 to 650 nm" in repr(scene)
    assert "Natural colour: bands 3, 2, 1." in scene._repr_html_()


def test_names_are_escaped_in_every_html(run, scene, evaluation):
    for each in (scene, run, evaluation, hsi_se.make_split(scene, CONFIG), hsi_se.map_scene(run, session=CPU)):
        text = each._repr_html_()
        assert "<script" not in text
        if each is not run and not isinstance(each, hsi_se.Split):
            assert html.escape(EVIL) in text


def test_the_picture_of_a_map_has_the_colours_of_its_legend(run, scene):
    mapped = hsi_se.map_scene(run, session=CPU)
    text = mapped._repr_html_()
    picture = np.rint(255 * read_picture(text)[..., :3]).astype(int)
    palette = make_palette(scene.class_ids)
    for row, col in ((0, 0), (11, 7), (23, 25)):
        assert tuple(picture[row, col]) == palette[mapped.labels[row, col]]
    assert re.findall(r"background:#([0-9a-f]{6})", text) == [
        "{:02x}{:02x}{:02x}".format(*palette[label]) for label in scene.class_ids.tolist()
    ]


def test_the_picture_of_a_large_scene_is_small():
    cube = np.random.default_rng(0).random((1000, 30, 3))
    picture = read_picture(hsi_se.Scene.from_arrays(cube, np.ones((1000, 30)))._repr_html_())
    assert max(picture.shape) <= MOST_PIXELS


def test_an_evaluated_run_shows_its_report_in_a_sandbox_and_others_their_state(run, scene, evaluation, tmp_path):
    del evaluation
    shown = run._repr_html_()
    frame = re.search(r'<iframe title="[^"]*" sandbox="allow-scripts" srcdoc="([^"]*)"', shown)
    assert html.unescape(frame[1]) == run.page.read_text("utf-8")
    trained = hsi_se.train(CONFIG, scene=scene, out=tmp_path / "run", session=CPU)
    assert repr(trained) == f"Run({trained}: trained on {EVIL}, not evaluated)"
    assert "not evaluated" in trained._repr_html_()
    assert "no such run folder" in repr(hsi_se.Run(tmp_path / "nowhere"))


def test_progress_is_a_bar_on_a_terminal_and_lines_or_nothing_off_one(monkeypatch, capfd):
    with show_progress() as lines, show_progress(elsewhere=Silent) as nothing:
        assert (type(lines), type(nothing)) == (PlainLines, Silent)
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich, standard error is a terminal
    with show_progress(elsewhere=Silent) as observer:
        assert type(observer) is ProgressBar
    capfd.readouterr()


def test_a_script_off_a_terminal_and_a_silent_session_print_nothing(scene, tmp_path, capfd):
    hsi_se.train(CONFIG, scene=scene, out=tmp_path / "one")
    hsi_se.train(CONFIG, scene=scene, out=tmp_path / "two", session=hsi_se.Session(observer=hsi_se.Silent()))
    assert capfd.readouterr() == ("", "")


CELL = """
import numpy as np, hsi_se
from hsi_se.scene.synthetic import make_synthetic_scene
made = make_synthetic_scene(seed=0, rows=24, cols=26, bands=20)
scene = hsi_se.Scene.from_arrays(made.cube, made.labels)
model = {"name": "spectrum_first", "features": 8}
config = %r | {"model": model, "train": {"epochs": 2}}
hsi_se.train(config, scene=scene, out="run")
"""


@pytest.mark.exhaustive
def test_a_real_notebook_shows_progress_the_run_and_an_error_of_one_line(tmp_path):
    cells = [nbformat.v4.new_code_cell(text) for text in (CELL % CONFIG, "scene", "hsi_se.evaluate(3)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    kernel = {"kernel_name": "python3", "resources": {"metadata": {"path": str(tmp_path)}}}
    NotebookClient(notebook, timeout=300, allow_errors=True, **kernel).execute()
    shown = [str(output.get("data", {}).get("text/html", "")) for output in cells[0].outputs]
    assert re.search(r'<progress value="(\d+)" max="\1"></progress> training  100 %.*epoch 2', "".join(shown))
    assert "trained on scene, not evaluated" in shown[-1]
    assert not [each for each in cells[0].outputs if each.output_type in ("stream", "error")]
    assert "data:image/png" in cells[1].outputs[0].data["text/html"]
    error = cells[2].outputs[0]
    assert error.traceback == [
        "RunError: run = 3: is not a run; give what hsi_se.train returned, or the path of a run folder"
    ]
    assert sys.modules.get("ipywidgets") is None
