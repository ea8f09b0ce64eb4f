"""The notebooks run in a real kernel, and what they show is what their files say."""

import html
import json
import re
from pathlib import Path
from typing import Any

import geopandas
import nbformat
import numpy as np
import pytest
import rasterio
from nbclient import NotebookClient

from hsi_se.scene.synthetic import make_synthetic_scene
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SITE = "https://hsi-se.github.io/hsi-se/"


def read(name: str) -> Any:
    return nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)


def execute(name: str, folder: Path, monkeypatch) -> tuple[Path, list[Any]]:
    """Runs a notebook whose files go below `folder`; returns their folder and the outputs, which have no errors."""
    monkeypatch.setenv("TMPDIR", str(folder))
    notebook = read(name)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [each for each in outputs if each.output_type in ("stream", "error")], "printed, or warned of"
    (made,) = folder.glob(f"{name}-*")
    return made, outputs


def join(outputs: list[Any], kind: str) -> str:
    return "\n".join(each.data[kind] for each in outputs if kind in each.get("data", {}))


def read_report(run: Path) -> Any:
    return json.loads((run / "report.json").read_text())


@pytest.mark.exhaustive
def test_the_map_for_a_gis_has_layout_style_and_areas(tmp_path, monkeypatch):
    folder, outputs = execute("enmap-map", tmp_path, monkeypatch)
    report, truth = read_report(folder / "run"), make_synthetic_scene(seed=1, rows=72, cols=72, bands=48)
    names = {row["label"]: row["name"] for row in report["area"]}
    with rasterio.open(folder / "map" / "map.tif") as file:
        assert (file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"], file.crs.to_epsg()) == ("COG", 32633)
        assert file.transform == rasterio.Affine(30, 0, 500_000, 0, -30, 5_400_000)
        labels = file.read(1)
    rows, cols = np.indices(labels.shape)
    assert np.array_equal(labels == 0, rows + cols < 10), "outside the swath is nodata, and nothing else"
    mapped = np.vectorize(names.get)(labels)
    known = (truth.labels > 0) & (labels > 0)
    assert (mapped == np.vectorize(truth.class_names.get)(truth.labels))[known].mean() > 0.7
    assert set(geopandas.read_file(folder / "map.gpkg")["name"]) == set(mapped[labels > 0])
    style = re.findall(r'<paletteEntry value="(\d+)" label="([^"]+)"', (folder / "map" / "map.qml").read_text())
    assert {int(label): name for label, name in style} == names
    table = join(outputs, "text/html")
    for row in report["area"]:
        hectares = [row[key] for key in ("mapped_pixels", "adjusted_pixels", "margin_95")]
        cells = ["NaN" if each is None else f"{each * 0.09:.1f}" for each in hectares]
        pattern = rf"<th>{row['name']}</th>\s*" + r"\s*".join(f"<td>{re.escape(cell)}</td>" for cell in cells)
        assert re.search(pattern, table), row
    assert html.escape(report["verdict"]) in table
    assert report["area_caveat"] in join(outputs, "text/markdown")


@pytest.mark.exhaustive
def test_the_first_scene_shows_what_a_random_split_hides(tmp_path, monkeypatch):
    folder, outputs = execute("first-scene", tmp_path, monkeypatch)
    runs = [read_report(folder / name) for name in ("random", "new-fields", "spectrum-first")]
    at_random, on_new_fields, spectrum_first = runs
    assert at_random["leakage"]["test_patches_with_train_pixels"] > 0.9
    assert at_random["location_floor"]["overall_accuracy"] > 0.9, "the floor is high, as the text says"
    assert on_new_fields["location_floor"]["overall_accuracy"] < 0.5, "the floor falls"
    accuracies = [run["overall_accuracy"] for run in runs]
    assert accuracies[1] < accuracies[0] - 0.1, "the network's accuracy falls, too"
    assert accuracies[2] > accuracies[1], "the other network has learnt less by heart"
    shown = join(outputs, "text/markdown")
    for run in runs:
        methods = run, run["location_floor"], run["spectral_baseline"]
        assert " | ".join(f"{each['overall_accuracy']:.1%}" for each in methods) in shown
    assert spectrum_first["verdict"] in shown
    frame = re.search(r'<iframe [^>]*srcdoc="([^"]*)"', join(outputs, "text/html"))
    assert html.unescape(frame[1]) == (folder / "spectrum-first" / "report.html").read_text("utf-8")


@pytest.mark.exhaustive
def test_the_ablation_compares_the_authors_block_with_none_and_se(tmp_path, monkeypatch):
    folder, outputs = execute("own-block-ablation", tmp_path, monkeypatch)
    (scene,) = json.loads((folder / "ablation" / "ablation.json").read_text())["scenes"]
    variants = {each["name"]: each for each in scene["variants"]}
    assert [*variants] == ["none", "se", "contrast"]
    channels, hidden = 12, 3  # the components of the notebook, and a quarter of them
    own = 2 * channels * hidden + hidden + hidden * channels + channels
    assert variants["contrast"]["num_parameters"] - variants["none"]["num_parameters"] == own
    shown = join(outputs, "text/markdown")
    for name in ("se", "contrast"):
        assert f"**{name}**: {variants[name]['comparison']['sentence']}" in shown
        assert len(variants[name]["runs"]) == 3
    for each in variants.values():
        oa = each["summaries"]["overall_accuracy"]
        assert f"| {each['name']} | {100 * oa['mean']:.1f} ± {100 * oa['std']:.1f} |" in shown
    assert read_report(folder / "ablation" / "runs" / "contrast" / "seed-0")["verdict"] in shown
    frame = re.search(r'<iframe [^>]*srcdoc="([^"]*)"', join(outputs, "text/html"))
    assert html.unescape(frame[1]) == (folder / "ablation" / "report.html").read_text("utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_in_the_navigation_and_its_links_lead_to_pages(path):
    notebook = read(path.stem)
    assert path.stat().st_size < 20_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell for cell in code if cell.outputs or cell.execution_count], "the site executes it"
    assert f"notebooks/{path.name}" in (ROOT / "mkdocs.yml").read_text()
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        page = link.removeprefix(SITE).rstrip("/")
        assert link.startswith(SITE)
        assert any((ROOT / "docs" / f"{page}{end}").is_file() for end in (".md", ".ipynb")), link
