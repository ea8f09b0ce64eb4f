"""Figures of a run: as wide as a column, letters no smaller than 7 points, the same bytes each time."""

import re
import shutil
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

import hsi_se
from hsi_se.evaluation.confidence import (
    Rejection,
    fit_temperature,
    measure_calibration,
    measure_rejection,
    to_probabilities,
)
from hsi_se.reports import run_figures
from hsi_se.reports.explorer import RunFiles
from hsi_se.reports.figures import SIDE_COLOURS
from hsi_se.runs.folder import RunFolder
from tests.conftest import CPU, give_temperature
from tests.evaluation.test_confidence import simulate
from tests.reports.conftest import make_explanation

NAMES = {
    "map", "truth", "map_labelled", "split", "confusion", "reliability", "rejection", "training",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory) -> RunFolder:
    folder = hsi_se.train(tiny_config, out=tmp_path_factory.mktemp("runs") / "tiny", session=CPU)
    give_temperature(folder, 0.6)
    hsi_se.evaluate(folder)
    return folder


def write(run, call, file_format: str) -> dict[str, bytes]:
    code, out, _ = call("report", run, "--figures", file_format)
    assert code == 0
    paths = [run.path / "figures" / f"{name}.{file_format}" for name in NAMES]
    assert {f"figure: {path}" for path in paths} <= set(out.splitlines())
    return {path.stem: path.read_bytes() for path in paths}


def test_svg_figures_are_a_column_wide_with_letters_of_7_points_and_more(run, call):
    for name, data in write(run, call, "svg").items():
        text = data.decode()
        width = float(re.search(r'<svg [^>]*width="([\d.]+)pt"', text)[1])
        assert width == pytest.approx(3.5 * 72, abs=1), name
        sizes = re.findall(r"font(?:-size)?: ([\d.]+)px", text)  # px of the svg are its pt
        assert sizes, name
        assert min(map(float, sizes)) >= 7, name
    assert "corn" in (run.path / "figures" / "map.svg").read_text(), "text stays text"


def test_png_figures_have_a_columns_pixels(run, call):
    for name, data in write(run, call, "png").items():
        assert data.startswith(b"\x89PNG")
        picture = matplotlib.image.imread(run.path / "figures" / f"{name}.png")
        assert picture.shape[1] == 3.5 * 600


def test_pdf_figures_are_the_same_each_time_and_embed_their_fonts(run, call):
    first = write(run, call, "pdf")
    assert first == write(run, call, "pdf")
    for data in first.values():
        width = float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", data)[1])
        assert width == pytest.approx(3.5 * 72, abs=1)
        assert b"/FontFile2" in data
        assert b"/Type3" not in data


def test_a_mistake_in_the_format_is_one_line_and_writes_nothing(run, call):
    before = run.page.stat().st_mtime_ns
    code, out, err = call("report", run, "--figures", "jpeg")
    assert (code, out) == (2, "")
    assert err == "hsi-se: --figures jpeg: choose from png, pdf, svg\n"
    assert run.page.stat().st_mtime_ns == before


def read_png(folder: RunFolder, name: str) -> np.ndarray:
    """8-bit RGB `(rows, cols, 3)` of a figure."""
    picture = matplotlib.image.imread(folder.path / "figures" / f"{name}.png")
    return (255 * picture[..., :3]).round().astype(int)


def colours_of(folder: RunFolder, name: str) -> set[tuple[int, ...]]:
    return set(map(tuple, np.unique(read_png(folder, name).reshape(-1, 3), axis=0).tolist()))


@pytest.mark.exhaustive
def test_maps_show_the_class_colours_and_the_split_its_own(run, call):
    write(run, call, "png")
    files = RunFiles.read(run)
    palette = run.read_facts().palette
    for name, places in (("map", files.explorer.prediction), ("truth", files.explorer.truth)):
        assert {palette[files.facts.class_ids[place - 1]] for place in np.unique(places) if place} <= (
            colours_of(run, name)
        )
    of_sides = {SIDE_COLOURS[side][1] for side in np.unique(files.explorer.sides).tolist()}
    assert {tuple(bytes.fromhex(colour[1:])) for colour in of_sides} <= colours_of(run, "split")


def test_over_labelled_pixels_the_map_shows_the_prediction_and_nothing_elsewhere(run, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        run_figures, "_draw_map", lambda _, places: drawn.setdefault(len(drawn), places) is None or Figure()
    )
    files = RunFiles.read(run)
    run_figures.write_figures(files, file_format="png")
    prediction, truth, labelled = drawn.values()
    np.testing.assert_array_equal(prediction, files.explorer.prediction)
    np.testing.assert_array_equal(labelled, np.where(truth > 0, prediction, 0))


def test_legends_name_every_class_and_count_every_side(run, call):
    write(run, call, "svg")
    explorer = RunFiles.read(run).explorer
    text = (run.path / "figures" / "map.svg").read_text()
    for place in np.unique(explorer.prediction).tolist():
        assert f">{run.read_facts().class_names[place - 1]}</text>" in text
    text = (run.path / "figures" / "split.svg").read_text()
    for side, (name, _) in SIDE_COLOURS.items():
        count = int((explorer.sides == side).sum())
        assert (f">{name}: {count:,}</text>" in text) == (count > 0)


def test_curves_say_their_calibration_error_and_the_area_under_them(run, call):
    write(run, call, "svg")
    report, explorer = run.read_report(), RunFiles.read(run).explorer
    text = (run.path / "figures" / "reliability.svg").read_text()
    assert f"as trained: ECE {100 * report.calibration.expected_calibration_error:.2f} %" in text
    assert f"after temperature scaling (T = {report.calibration.scaling.temperature:.2f}): ECE" in text
    text = (run.path / "figures" / "rejection.svg").read_text()
    assert f"area under the risk-coverage curve {Rejection(*explorer.rejection).aurc:.4f}" in text
    assert f"all test pixels: {100 * report.overall_accuracy:.2f} %" in text


@pytest.mark.parametrize("num_pixels", [1, 12, 4000])
def test_curves_are_drawn_for_few_pixels_and_many(run, tmp_path, num_pixels):
    logits, truth = simulate(num_pixels)
    probabilities = to_probabilities(3 * logits, temperature=fit_temperature(3 * logits, truth))
    curves = [measure_calibration(each, truth) for each in (to_probabilities(3 * logits), probabilities)]
    rejection = measure_rejection(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth)
    files = RunFiles.read(run)
    before, after = (np.stack([each.mean_confidence, each.accuracy, each.count]) for each in curves)
    explorer = replace(
        files.explorer,
        calibration=before,
        calibration_scaled=after,
        rejection=np.stack([rejection.coverage, rejection.accuracy]),
    )
    shutil.copytree(run.path, tmp_path / "copy")
    copy = RunFolder(tmp_path / "copy")
    run_figures.write_figures(replace(files, folder=copy, explorer=explorer), file_format="png")
    for name in ("reliability", "rejection"):
        assert read_png(copy, name).std() > 255 * 0.01


def test_names_with_dollars_are_no_mathematics(run, tmp_path):
    files = RunFiles.read(run)
    names = ("$\\alpha$ 5$", *files.facts.class_names[1:])
    shutil.copytree(run.path, tmp_path / "copy")
    facts = files.facts.model_copy(update={"class_names": names})
    copy = replace(files, folder=RunFolder(tmp_path / "copy"), facts=facts)
    run_figures.write_figures(copy, file_format="svg")
    assert ">$\\alpha$ 5$</text>" in (tmp_path / "copy" / "figures" / "truth.svg").read_text()


def test_the_gates_are_drawn_once_they_are_explained(run, call, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    copy = RunFolder(tmp_path / "copy")
    copy.write(copy.explanation, make_explanation())
    write(copy, call, "svg")
    text = (copy.path / "figures" / "gates.svg").read_text()
    sizes = re.findall(r"font(?:-size)?: ([\d.]+)px", text)
    assert min(map(float, sizes)) >= 7
    assert "1  crop 1" in text
    assert copy.find_foreign() is None, "train --overwrite may replace what the commands wrote"
