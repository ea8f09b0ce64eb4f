"""Figures for a paper: as wide as a column, letters no smaller than 7 points, the same bytes each time."""

import re

import matplotlib.image
import pytest

import hsi_se
from hsi_se.runs.folder import RunFolder
from tests.conftest import CPU

NAMES = {"map", "truth", "confusion", "reliability", "rejection", "training"}


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory) -> RunFolder:
    folder = hsi_se.train(tiny_config, out=tmp_path_factory.mktemp("runs") / "tiny", session=CPU)
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
    assert err == "hsi-se: --figures jpeg: choose from pdf, svg, png\n"
    assert run.page.stat().st_mtime_ns == before
