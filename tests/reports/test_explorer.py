"""What a page holds of every pixel: exact where it can be, bounded in size, and the same as the scene."""

import base64
import io
import json
import re
import zlib
from dataclasses import fields, replace

import matplotlib
import matplotlib.image
import numpy as np
import pytest

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.evaluation.confidence import to_probabilities
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.prediction.logits import predict_logits
from hsi_se.reports import page
from hsi_se.reports.explorer import FULL, Explorer, _quantise
from hsi_se.runs.folder import RunFolder
from hsi_se.workflows.evaluate import assess_run
from tests.conftest import CPU, ROOT, TINY
from tests.reports.conftest import EXCITATION, make_explanation

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory) -> RunFolder:
    folder = hsi_se.train(tiny_config, out=tmp_path_factory.mktemp("runs") / "tiny", session=CPU)
    hsi_se.evaluate(folder)
    return folder


@pytest.fixture(scope="module")
def files(run) -> page.RunFiles:
    return page.RunFiles.read(run)


def unpack(text: str, element: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a page as its script does."""
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])
    packed = re.search(rf'id="{element}">(.*?)</script>', text, re.DOTALL)[1]
    data = np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype=np.uint8)
    arrays, start = {}, 0
    for entry in facts[element]:
        size = int(np.prod(entry["shape"]))
        part = data[start : start + size * entry["width"]]
        start += len(part)
        if entry["width"] == 2:
            part = 256 * part[:size].astype(int) + part[size:]
        arrays[entry["name"]] = part.reshape(entry["shape"])
    assert start == len(data)
    return arrays


def test_a_page_holds_the_scene_as_it_was_classified(run, tiny_config):
    scene = hsi_se.load_scene(tiny_config.scene)
    text = run.page.read_text()
    maps, spectra = unpack(text, "maps"), unpack(text, "spectra")
    places = np.concatenate([[0], scene.class_ids])
    np.testing.assert_array_equal(places[maps["truth"]], scene.labels)
    np.testing.assert_array_equal(spectra["spectra"] + int(scene.cube.min()), scene.cube)
    np.testing.assert_array_equal(maps["sides"], run.read_split().to_sides(scene.shape))

    bundle = run.read_bundle()
    components = bundle.reduction.apply(scene.cube)
    logits = predict_logits(build_bundled_model(bundle), components, padding=bundle.facts.padding)
    np.testing.assert_array_equal(maps["prediction"], logits.argmax(axis=2) + 1)
    temperature = run.read_report().calibration.scaling.temperature
    chances = to_probabilities(logits.reshape(-1, scene.num_classes), temperature=temperature)
    found = maps["top_probabilities"].reshape(-1, 3) / FULL
    np.testing.assert_allclose(found, -np.sort(-chances, axis=1)[:, :3], atol=0.6 / FULL)


def test_the_maps_count_what_the_confusion_matrix_counts(files):
    explorer, confusion = files.explorer, files.report.evaluation.confusion
    is_test = explorer.sides == 3
    counts = np.zeros_like(confusion)
    np.add.at(counts, (explorer.truth[is_test] - 1, explorer.prediction[is_test] - 1), 1)
    np.testing.assert_array_equal(counts, confusion)


def test_mean_spectra_are_those_of_the_labelled_pixels(files, tiny_config):
    scene = hsi_se.load_scene(tiny_config.scene)
    for mean, label in zip(files.explorer.class_means, scene.class_ids, strict=True):
        expected = [scene.cube[row, col].astype(float) for row, col in np.argwhere(scene.labels == label)]
        np.testing.assert_allclose(mean, sum(expected) / len(expected))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_integers_are_kept_exactly(dtype):
    info = np.iinfo(dtype)
    values = RNG.integers(info.min, info.max, (5, 4, 7), endpoint=True).astype(dtype)
    stored, low, step = _quantise(values)
    np.testing.assert_array_equal(low + step * stored, values)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint32])
def test_other_numbers_are_kept_to_half_a_step_of_their_bands_range(dtype):
    values = (RNG.normal(size=(6, 5, 4)) * [1, 1e3, 1e6, 0] + [0, 5, 1e5, 3]).astype(dtype)
    stored, low, step = _quantise(values)
    assert stored.dtype == np.uint16
    error = np.abs(low + step * stored - values.astype(float)).max(axis=(0, 1))
    spread = np.ptp(values.astype(float), axis=(0, 1))
    assert (error <= 0.51 * spread / FULL + 1e-12).all()


def test_a_report_is_made_again_from_the_folder_alone(run, call):
    before = run.page.read_bytes()
    run.page.unlink()
    code, out, _ = call("report", run)
    assert (code, out) == (0, f"report: {run.page}\n")
    assert run.page.read_bytes() == before


def test_the_commands_on_the_page_train_the_same_run_again(run, files, call):
    commands = page.reproduce(files).splitlines()
    assert all(command in run.page.read_text() for command in commands)
    for command in commands:
        name, *arguments = command.split()
        assert name == "hsi-se"
        assert call(*arguments)[0] == 0
    again = RunFolder(f"{run}-again")
    losses = [[epoch.loss for epoch in folder.read_record().history] for folder in (run, again)]
    assert losses[0] == losses[1]
    assert again.read_report().confusion_matrix == run.read_report().confusion_matrix


def test_names_from_files_are_text_and_never_markup(files):
    evil = '</script><img src=x onerror="document.title=1">&'
    facts = files.facts.model_copy(update={"class_names": (evil, *files.facts.class_names[1:])})
    record = files.record.model_copy(update={"scene": evil})
    text, _ = page.render_page(page.RunFiles(files.folder, record, facts, files.report, files.explorer))
    assert "<img" not in text
    assert text.count("</script>") == 4
    assert json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])["classes"][0]["name"] == evil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: run.report.unlink(), "is not evaluated yet (report.json is missing); run `hsi-se eval "),
        (lambda run: run.report.write_text("{}"), "report.json: not what this version writes (overall_accuracy: "),
        (lambda run: run.report.write_text("[1]"), "report.json: not what this version writes ("),
        (
            lambda run: run.report.write_text(
                '{"overall_accuracy": 1, "confusion_matrix": [], "verdict": "", "calibration": {}}'
            ),
            "report.json: not what this version writes (",
        ),
        (lambda run: run.explorer.unlink(), "explorer.safetensors: missing from the run folder; run `hsi-se "),
        (lambda run: run.explorer.write_bytes(b"0" * 99), "explorer.safetensors: damaged ("),
        (lambda run: run.record.unlink(), "this run is not finished"),
    ],
)
def test_a_run_that_has_no_report_to_give_is_one_line_with_its_remedy(run, call, tmp_path, spoil, message):
    copy = RunFolder(tmp_path / "copy")
    copy.path.mkdir()
    for path in run.path.glob("*.*"):
        (copy.path / path.name).write_bytes(path.read_bytes())
    spoil(copy)
    code, out, err = call("report", copy)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_series_is_told_to_name_one_of_its_runs(run, call, tmp_path):
    (tmp_path / "seed-0").symlink_to(run.path)
    code, _, err = call("report", tmp_path)
    assert code == 2
    assert err.endswith(f": contains runs but is not a run itself; name one of them, such as {tmp_path}/seed-0\n")


def test_two_classes_have_a_page_too(tmp_path):
    """Fewer classes than a read-out has bars, and a scene with nodata and floating-point values."""
    scene = hsi_se.load_scene(load_config(ROOT / "configs" / "demo.yaml", TINY).scene)
    cube = scene.cube.astype(np.float32) / 10_000
    cube[0, :3] = np.nan
    np.savez(tmp_path / "scene.npz", cube=cube)
    np.savez(tmp_path / "labels.npz", labels=np.where(scene.labels > 4, 40, np.minimum(scene.labels, 1)))
    section = f"scene={{cube: {tmp_path}/scene.npz, labels: {tmp_path}/labels.npz, nodata: nan}}"
    config = load_config(ROOT / "configs" / "demo.yaml", [*TINY, section])
    run = hsi_se.train(config, out=tmp_path / "run", session=CPU)
    assessment = assess_run(run)
    maps = unpack(run.page.read_text(), "maps")
    assert maps["top_classes"].shape == (24, 24, 2)
    assert not maps["prediction"][0, :3].any()
    assert maps["prediction"][1:].all()
    assert assessment.evaluation.num_test == run.read_report().num_test


def test_every_field_of_the_explorer_survives_the_folder(files):
    for field in fields(Explorer):
        assert isinstance(getattr(files.explorer, field.name), np.ndarray), field.name


def test_the_gates_are_on_the_page_when_they_have_been_explained(run, files, tmp_path):
    assert "What the gates do" not in run.page.read_text()
    explanation = make_explanation(
        crop="crop <{}>", gates_in_words="The gates <differ>.", modes_in_words="Both modes agree."
    )
    folder = RunFolder(tmp_path)
    folder.explanation.write_text(explanation.model_dump_json())
    text, _ = page.render_page(replace(files, explanation=folder.read_explanation()))
    for part in (
        "What the gates do", "crop &lt;1&gt;", "standard deviation 0.1250, ω² 50.00 %",
        "The gates &lt;differ&gt;.", "Both modes agree.",
    ):  # fmt: skip
        assert part in text
    picture = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', text)[1])
    shown = matplotlib.image.imread(io.BytesIO(picture))
    expected = matplotlib.colormaps["viridis"]((np.array(EXCITATION) - 0.25) / 0.5)
    np.testing.assert_allclose(shown, expected, atol=1 / 255)


def test_open_hands_the_page_to_the_browser(run, call, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert call("report", run, "--open")[0] == 0
    assert opened == [run.page.resolve().as_uri()]
