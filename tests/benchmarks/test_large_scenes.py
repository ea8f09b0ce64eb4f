"""The measurement of large products runs from writing the files to the map."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.exhaustive
def test_products_are_written_trained_on_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, out = ROOT / "benchmarks" / "large_scenes.py", tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", [str(script), "--tiny", "--out", str(out)])
    runpy.run_path(str(script), run_name="__main__")
    products = json.loads(out.read_text())["products"]
    assert list(products) == ["EMIT L2A", "PRISMA L2D"]
    for found in products.values():
        assert found["labelled"] > 0
        assert all(found[step]["peak_mib"] > 0 for step in ("train", "map"))


@pytest.mark.exhaustive
def test_sparse_scenes_are_written_trained_on_and_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, out = ROOT / "benchmarks" / "large_scenes.py", tmp_path / "found.json"
    case = "ENVI, MNF, folds, drop_bands"
    monkeypatch.setattr(sys, "argv", [str(script), "--sparse", "--tiny", "--case", case, "--out", str(out)])
    runpy.run_path(str(script), run_name="__main__")
    (found,) = json.loads(out.read_text())["products"].values()
    assert found["labelled"] == 5000
    assert all(found[step]["peak_mib"] >= found[step]["anonymous_mib"] > 0 for step in ("train", "eval"))


def test_the_stored_measurement_of_sparse_scenes_stays_below_two_gibibytes() -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "sparse_scenes.json").read_text())["products"]
    assert all(found["shape"] == [5000, 5000, 100] and found["labelled"] == 5000 for found in stored.values())
    assert all(found[step]["peak_mib"] < 2048 for found in stored.values() for step in ("train", "eval"))


def test_the_stored_measurement_stays_below_two_gibibytes() -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "large_scenes.json").read_text())["products"]
    assert [found["shape"] for found in stored.values()] == [[1280, 1242, 285], [1000, 1000, 234]]
    assert all(found[step]["peak_mib"] < 2048 for found in stored.values() for step in ("train", "map"))
