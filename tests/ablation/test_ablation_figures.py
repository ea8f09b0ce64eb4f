"""The figures of an ablation: references drawn, tooltips, costs that can be told apart, maps as small multiples."""

import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from matplotlib.figure import Figure

from hsi_se.ablation.figures import _draw_cost, _draw_seeds, list_figures, list_map_figures
from hsi_se.ablation.record import AblationFolder
from hsi_se.ablation.tables import write_reports
from hsi_se.reports.explorer import RunFiles
from tests.ablation.test_ablation_page import BASE, GATED, make_variant

SVG = "{http://www.w3.org/2000/svg}"


def make_scene(finished: AblationFolder, **changes):
    (scene,) = finished.read_report().scenes
    return scene.model_copy(update=changes)


def list_titles(text: str) -> list[str]:
    return [each.text for each in ET.fromstring(text).iter(f"{SVG}title")]


def test_every_dot_line_and_interval_has_a_tooltip_with_its_numbers(finished):
    report = finished.read_report()
    drawn = {figure.name: list_titles(figure.render_svg()) for figure in list_figures(report)}
    (scene,) = report.scenes
    for variant in scene.variants:
        for run in variant.runs:
            assert f"{variant.name}, seed {run.seed}: {100 * run.overall_accuracy:.2f} %" in drawn["seeds"]
            floor = np.mean([each.location_floor.overall_accuracy for each in variant.runs])
            assert f"{variant.name}, location floor: {100 * floor:.2f} %" in drawn["seeds"]
        mean = variant.summaries["overall_accuracy"]
        said = f"{variant.name}: mean OA {100 * mean.mean:.2f} %, 95 % interval {100 * mean.low:.2f} to "
        assert any(title.startswith(said) and title.endswith("n = 2") for title in drawn["seeds"])
        assert any(title.startswith(said) and "M multiply-accumulates" in title for title in drawn["cost"])
    pairs = [title for title in drawn["pairs"] if title.startswith("se, seed ")]
    assert len(pairs) == 2


def test_tooltips_are_in_the_files_too_and_names_stay_text(finished, tmp_path):
    scene = make_scene(finished, variants=(make_variant('a"b <&>', BASE, None),), class_names={7: "oats"})
    report = finished.read_report().model_copy(update={"scenes": (scene,), "baseline": 'a"b <&>'})
    (figure,) = list_figures(report)
    path = figure.write(tmp_path, file_format="svg")
    assert 'a"b <&>, seed 0: 90.00 %' in list_titles(path.read_text("utf-8"))


def test_references_are_drawn_as_lines_or_where_too_far_as_arrows_at_the_edge(finished):
    variants = (make_variant("none", BASE, None), make_variant("se", GATED, None))
    (axes,) = _draw_seeds([make_scene(finished, variants=variants, class_names={7: "oats"})], "none").axes
    floor = [line for line in axes.lines if "location floor" in (line.get_gid() or "")]
    baseline = [line for line in axes.lines if "spectral baseline" in (line.get_gid() or "")]
    assert [line.get_xdata()[0] for line in floor] == pytest.approx([88, 88])
    assert [(line.get_marker(), line.get_xdata()[0]) for line in baseline] == [("<", 0), ("<", 0)]
    assert axes.get_xlim()[0] > 80, "the axis still shows the differences between the variants"
    assert axes.get_title().endswith("spectral baseline 70.00 %, to the left")


def draw_costs(finished: AblationFolder, *macs: int) -> Figure:
    variants = tuple(make_variant(f"v{number}", BASE, None) for number in range(len(macs)))
    variants = tuple(
        variant.model_copy(update={"macs_per_patch": count}) for variant, count in zip(variants, macs, strict=True)
    )
    return _draw_cost([make_scene(finished, variants=variants, class_names={7: "oats"})])


def test_the_axes_of_cost_begin_where_the_variants_do(finished):
    (axes,) = draw_costs(finished, 79_000_000, 80_000_000, 81_000_000).axes
    assert 78 < axes.get_xlim()[0] < 79 < 81 < axes.get_xlim()[1] < 82
    assert axes.get_ylim()[0] > 80
    (axes,) = draw_costs(finished, 2_000, 80_000_000).axes
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "million multiply-accumulates per patch")
    assert 0 < axes.get_xlim()[0] < 0.002
    (axes,) = draw_costs(finished, 80_000_000, 80_000_000).axes
    assert 79 < axes.get_xlim()[0] < 80 < axes.get_xlim()[1] < 81


def test_the_page_has_the_maps_of_the_variants_with_one_legend_and_nothing_without_maps(finished, tmp_path):
    report = finished.read_report()
    (drawing,) = list_map_figures(report, finished)
    figure = drawing.draw()
    panels = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    assert list(panels) == ["labels", "none", "se"]
    assert len(figure.legends) == 1
    for variant in report.scenes[0].variants:
        run = RunFiles.read(finished.open_run(variant.runs[0].folder))
        same = run.explorer.prediction[:, 1:] == run.explorer.prediction[:, :-1]
        shown = (panels[variant.name][:, 1:] == panels[variant.name][:, :-1]).all(axis=2)
        np.testing.assert_array_equal(shown, same)
    without = AblationFolder(shutil.copytree(finished.path, tmp_path / "copy"))
    write_reports(report, without)
    assert drawing.caption in without.page.read_text("utf-8")
    for path in without.path.rglob("explorer.safetensors"):
        path.unlink()
    write_reports(report, without)
    assert drawing.caption not in without.page.read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_real_runs_reads_with_the_keyboard_and_axe_finds_nothing(browser, finished, scheme):
    for width in (1600, 400):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        page = context.new_page()
        page.goto(finished.page.resolve().as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for fold_out in page.locator("summary").all():
            fold_out.click()
        found = Axe().run(page).response["violations"]
        assert [(each["impact"], each["id"], each["nodes"][0]["html"]) for each in found] == []
        stop = page.locator(".stop").first
        stop.focus()
        note = page.locator("#note")
        assert note.inner_text() == stop.get_attribute("aria-label")
        box = note.bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
        page.keyboard.press("Tab")
        assert note.count() == 1, "the next stop has its own"
        assert note.inner_text() != stop.get_attribute("aria-label")
        context.close()


def test_each_answer_is_one_line_on_a_wide_page_with_its_interval(browser, finished):
    context = browser.new_context(viewport={"width": 1600, "height": 900})
    page = context.new_page()
    page.goto(finished.page.resolve().as_uri())
    answers = page.locator(".answers li")
    assert answers.count() == 1
    assert answers.first.bounding_box()["height"] < 40
    assert re.search(r"[+−]\d+\.\d\d points \[[+−]\d+\.\d\d, [+−]\d+\.\d\d\]", answers.first.inner_text())
    box, span = page.locator(".reach").bounding_box(), page.locator(".reach i").first.bounding_box()
    assert box["x"] <= span["x"]
    assert span["x"] + span["width"] <= box["x"] + box["width"] + 0.5
    context.close()


def test_over_seeds_the_answers_are_those_against_floor_and_baseline(over_seeds):
    text = over_seeds.page.read_text("utf-8")
    answers = re.findall(r'<li class="[a-z]*"><b>([^<]+)</b>', text)
    assert answers == ["against the location floor", "against the spectral baseline"]
