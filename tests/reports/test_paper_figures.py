"""Figures of many classes and of classes with long names: they can be read, or leave out what cannot."""

import time
import tracemalloc
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from hsi_se.ablation.figures import _style_line
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.prediction.class_map import ClassMap
from hsi_se.reports.figures import Drawing, save_map, wrap_name
from hsi_se.reports.run_figures import draw_confusions, draw_maps
from hsi_se.scene.scene import make_palette

STYLE = "hsi_se.reports.run"
LONG = "Buildings_Grass_Trees_Drives of_the_northern_part"


def make_evaluation(size: int) -> Evaluation:
    rng = np.random.default_rng(size)
    confusion = rng.multinomial(1000, np.full(size, 1 / size), size)
    np.fill_diagonal(confusion, 5000)
    return Evaluation(confusion, tuple(range(1, size + 1)), tuple(f"class_{place}" for place in range(size)))


def read_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("size", [3, 9, 16])
def test_a_confusion_matrix_has_per_cent_of_each_row_and_its_total(size):
    found = make_evaluation(size)
    texts = read_texts(draw_confusions({"": found}))
    for row in found.confusion:
        assert f"{row.sum():,}" in texts
        for count in row.tolist():
            share = 100 * count / row.sum()
            assert share < 0.5 or str(int(share + 0.5)) in texts
    assert "pixels" in texts


def test_three_hundred_classes_are_shades_in_bounded_time_and_memory(tmp_path):
    found = make_evaluation(300)
    start = time.monotonic()
    tracemalloc.start()
    figure = draw_confusions({"": found})
    assert len(read_texts(figure)) < 80, "labels along the axes and the bar alone"
    (image,) = figure.axes[0].images
    np.testing.assert_allclose(image.get_array(), 100 * found.shares)
    Drawing("confusion", "", lambda: figure, STYLE).write(tmp_path, file_format="pdf")
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
    labels = np.arange(400, dtype=np.int32).reshape(20, 20) % 300 + 1
    names = {label: f"{LONG} {label}" for label in range(1, 301)} | {1: "x" * 3000}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_map(ClassMap(labels, names, make_palette(range(301))), tmp_path / "map.png", title="")
    assert time.monotonic() - start < 60


def test_names_are_wrapped_and_only_a_very_long_one_is_cut():
    assert wrap_name("corn_notill") == "corn notill"
    assert wrap_name(LONG).replace("\n", " ") == LONG.replace("_", " ")
    assert max(map(len, wrap_name(LONG).split("\n"))) <= 24
    assert max(map(len, wrap_name("玉米" * 12).split("\n"))) <= 12
    start = time.monotonic()
    cut = wrap_name("x" * 1_000_000)
    assert time.monotonic() - start < 1
    assert (len(cut), cut[-1]) == (3 * 24 + 2, "…")


def test_small_multiples_share_one_legend_that_names_every_class(tmp_path, capfd):
    names = (LONG, "Corn_notill", "玉米", *(f"class {place}" for place in range(4, 17)))
    facts = SimpleNamespace(class_ids=tuple(range(1, 17)), class_names=names, palette=make_palette(range(17)))
    places = np.arange(900).reshape(30, 30).astype(np.uint16) % 17
    panels = {name: np.roll(places, shift) for shift, name in enumerate(["labels", "none", "fold_se", "conv2d"])}
    figures = []
    drawing = Drawing("maps", "", lambda: figures.append(draw_maps(panels, facts)) or figures[-1], STYLE)
    drawing.write(tmp_path, file_format="png")
    (figure,) = figures
    assert len(figure.legends) == 1
    legend = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert legend[:2] == [LONG.replace("_", " "), "Corn notill"]
    assert len(legend) == 16
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == ["labels", "none", "fold se", "conv2d"]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box, renderer = figure.bbox, canvas.get_renderer()
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            extent = text.get_window_extent(renderer)
            assert box.x0 - 1 <= extent.x0 <= extent.x1 <= box.x1 + 1, text.get_text()
            assert box.y0 - 1 <= extent.y0 <= extent.y1 <= box.y1 + 1, text.get_text()
    assert capfd.readouterr() == ("", ""), "no warning of a missing glyph"


def test_lines_are_told_apart_without_colour():
    assert len({str(_style_line(place)["linestyle"]) for place in range(5)}) == 5
    assert len({str(_style_line(place)) for place in range(30)}) == 30
