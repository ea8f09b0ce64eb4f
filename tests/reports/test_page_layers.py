"""Layers of the map that only some runs have, the polygon under the pointer, and pages of large scenes."""

import json
import re
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import hsi_se
from hsi_se.config.model import Lda
from hsi_se.config.yaml_file import load_config
from hsi_se.reports import page
from hsi_se.reports.compare import write_comparison
from hsi_se.reports.explorer import FULL, GateMap, Likeliest, RunFiles, make_explorer
from hsi_se.runs.folder import RunFolder
from hsi_se.workflows.evaluate import assess_run
from tests.conftest import CPU, ROOT, TINY, quick_baselines
from tests.reports.reader import Reader
from tests.reports.test_explorer import unpack

LARGE = (2000, 2000)


def test_the_gate_that_tells_the_classes_apart_best_is_a_layer_over_the_test_pixels(browser, explained, run):
    explanation, split = explained.read_explanation(), explained.read_split()
    best = explanation.best_gate
    assert best.between_class_share == max(gate.between_class_share or 0 for gate in explanation.gates)
    found = explained.read_arrays(GateMap, explained.gate_map)
    np.testing.assert_array_equal(found.pixels, split.test)
    labels = hsi_se.load_scene(load_config(ROOT / "configs" / "demo.yaml", TINY).scene).labels
    for each, row in zip(explanation.classes, best.mean_excitation, strict=True):
        mine = found.mean_excitation[labels[tuple(split.test.T)] == each.label]
        assert mine.mean() == pytest.approx(np.mean(row), abs=1e-5), "the mean of a class is that of its pixels"

    reader = Reader(browser.new_page(viewport={"width": 1600, "height": 1000})).open(explained)
    low, high = found.mean_excitation.min(), found.mean_excitation.max()
    reader.page.click('[data-layer="gate"]')
    key = reader.page.locator('.key[data-for="gate"]').inner_text()
    for part in (f"{low:.3f}", f"{high:.3f}", best.point, "Only test pixels were measured"):
        assert part in key
    (row, col), value = found.pixels[3], found.mean_excitation[3]
    reader.hover(int(row), int(col))
    assert float(reader.text("gate")) == pytest.approx(value, abs=0.002)
    other = np.argwhere(split.to_sides(labels.shape) != 3)[0]
    reader.hover(*other.tolist())
    assert reader.text("gate") == "not measured"
    light = reader.colours(*labels.shape) @ [0.3, 0.59, 0.11]
    at = tuple(found.pixels[np.argsort(found.mean_excitation)].T)
    assert np.corrcoef(light[at], np.arange(len(at[0])))[0, 1] > 0.7, "brighter where the gate is more open"
    assert reader.complaints == []
    reader.page.close()
    plain = Reader(browser.new_page()).open(run)
    assert plain.page.locator('[data-layer="gate"], #gate').count() == 0, "a run that is not explained has none"
    plain.page.close()


def test_gates_outside_the_scene_are_one_line_with_a_remedy(explained, tmp_path, call):
    copy = RunFolder(shutil.copytree(explained.path, tmp_path / "run"))
    copy.write_arrays(copy.gate_map, vars(GateMap(np.array([[0, 99]]), np.array([0.5], np.float32))))
    code, _, err = call("report", copy)
    problem = "has no pixels, or pixels outside the scene"
    assert (code, err) == (2, f"hsi-se: {copy.gate_map}: {problem}; run `hsi-se explain {copy}`\n")


def test_the_polygon_of_a_label_is_named_under_the_pointer(browser, run, scene, tmp_path):
    files = RunFiles.read(run)
    polygons = np.where(scene.labels > 0, 7 + np.arange(24) // 12, 0).astype(np.int32)
    likeliest = Likeliest.of(scene, temperature=1.0)
    with quick_baselines(Lda(name="lda")):
        assessment = assess_run(shutil.copytree(run.path, tmp_path / "again"), session=CPU, draw=False)
    made = make_explorer(
        replace(scene, polygons=polygons), run.read_split(), likeliest=likeliest, assessment=assessment
    )
    np.testing.assert_array_equal(made.polygons, polygons)
    assert make_explorer(scene, run.read_split(), likeliest=likeliest, assessment=assessment).polygons.size == 0
    text, _ = page.render_page(replace(files, explorer=replace(files.explorer, polygons=made.polygons)))
    copy = RunFolder(tmp_path)
    copy.page.write_text(text)
    reader = Reader(browser.new_page(viewport={"width": 1600, "height": 1000})).open(copy)
    row, col = np.argwhere(polygons == 8)[0].tolist()
    reader.hover(row, col)
    name = scene.class_names[int(scene.labels[row, col])]
    assert re.match(rf"\d+ {re.escape(name)}, polygon 8(;|$)", reader.text("tip"))
    assert reader.text("polygon") == "8"
    reader.hover(*np.argwhere(scene.labels == 0)[0].tolist())
    assert reader.text("polygon") == "none"
    assert "polygon" not in reader.text("tip")
    assert reader.complaints == []
    reader.page.close()


def enlarge(run: RunFolder, path) -> RunFolder:
    """A run whose maps have 2,000 × 2,000 pixels of noise, with all layers that there are."""
    copy = RunFolder(shutil.copytree(run.path, path))
    rng, explorer = np.random.default_rng(0), RunFiles.read(run).explorer
    num_classes, bands = explorer.class_means.shape
    top = rng.integers(1, num_classes + 1, (*LARGE, 3), dtype=np.uint16)
    large = replace(
        explorer,
        truth=rng.integers(0, num_classes + 1, LARGE, dtype=np.uint16),
        prediction=top[..., 0].copy(),
        sides=rng.integers(0, 4, LARGE, dtype=np.uint8),
        top_classes=top,
        top_probabilities=rng.integers(0, FULL, (*LARGE, 3), endpoint=True, dtype=np.uint16),
        picture=rng.integers(0, 255, (*LARGE, 3), endpoint=True, dtype=np.uint8),
        polygons=rng.integers(0, FULL, LARGE, endpoint=True, dtype=np.uint16),
        spectra=rng.integers(0, FULL, (500, 500, bands), endpoint=True, dtype=np.uint16),
        spectra_every=np.array([4], np.int32),
    )
    copy.write_arrays(copy.explorer, vars(large))
    return copy


@pytest.mark.slow
def test_a_page_of_any_size_is_below_25_mb_and_says_what_was_thinned_and_where_the_rest_is(
    browser, explained, tmp_path
):
    run = enlarge(explained, tmp_path / "run")
    tracemalloc.start()
    files = RunFiles.read(run)
    held, to_read = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    page.write_page(run)
    peak = tracemalloc.get_traced_memory()[1] - held
    tracemalloc.stop()
    text = run.page.read_text()
    every = json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])["thinned"]
    assert peak < max(held + 200e6, 1.1 * to_read), "200 MB, whatever the size, beside the arrays of the run"
    assert 15_000_000 < run.page.stat().st_size <= 25_000_000
    side = -(-2000 // every)
    assert every == 3
    np.testing.assert_array_equal(unpack(text, "maps")["prediction"], files.explorer.prediction[::every, ::every])
    with Image.open(run.path / "map_pixels.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    palette = np.array([files.facts.palette[label] for label in (0, *files.facts.class_ids)])
    np.testing.assert_array_equal(pixels, palette[files.explorer.prediction])

    reader = Reader(browser.new_page(viewport={"width": 1600, "height": 1000})).open(run)
    said = reader.text("thinned")
    for part in ("2,000 × 2,000 pixels", "25 MB", "every 3rd row and column", f"{side} × {side}"):
        assert part in said
    assert reader.page.locator("#thinned a").get_attribute("href") == "map_pixels.png"
    reader.page.goto(f"{run.page.resolve().as_uri()}#layer=truth&pixel={every * 30},{every * 20 + 1}")
    reader.page.reload()
    reader.page.wait_for_selector("html[data-ready]", state="attached")
    assert reader.text("place") == f"row {every * 30}, column {every * 20}", "in the rows and columns of the scene"
    truth = int(files.explorer.truth[every * 30, every * 20])
    assert reader.text("truth").endswith(("unlabelled", *files.facts.class_names)[truth])
    reader.page.click('.legend [data-class="1"]')
    bright = int((files.explorer.truth[::every, ::every] == 1).sum())
    assert reader.text("lit").startswith(f"{bright:,} pixels of ")
    assert "by truth of those shown" in reader.text("lit")
    assert reader.complaints == []
    reader.page.close()


@pytest.mark.slow
def test_two_large_runs_side_by_side_are_below_25_mb_too(run, tmp_path):
    large = enlarge(run, tmp_path / "one")
    text_at = tmp_path / "page.html"
    write_comparison(large, large, text_at)
    text = text_at.read_text()
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])
    assert len(text.encode()) <= 25_000_000
    assert facts["thinned"] == 1 or f"every {facts['thinned']}" in text


def test_a_small_page_is_whole_and_has_no_second_file(run, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    (copy.path / "map_pixels.png").write_bytes(b"of an earlier page")
    page.write_page(copy)
    assert not (copy.path / "map_pixels.png").exists()
    assert 'id="thinned"' not in copy.page.read_text()


@pytest.mark.parametrize("room", [10**9, 2000, 1])
def test_maps_are_thinned_as_little_as_fits(room):
    maps = {
        "a": np.random.default_rng(0).integers(0, 256, (41, 30), dtype=np.uint8),
        "b": np.zeros((41, 30, 3), np.uint8),
    }
    every, described, packed = page.fit_maps(maps, room=room)
    thin = {name: array[::every, ::every] for name, array in maps.items()}
    assert (described, packed) == (page.describe_arrays(thin), page.pack(thin))
    assert len(packed) <= room or thin["a"].size == 1
    if every > 1:
        one_less = {name: array[:: every - 1, :: every - 1] for name, array in maps.items()}
        assert len(page.pack(one_less)) > room
