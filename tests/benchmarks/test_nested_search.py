"""Settings compared inside the training set: no other pixel takes part, and each is predicted once."""

import json
import shlex
import sys

import numpy as np
import pytest

from benchmarks import nested_search
from hsi_se.config.yaml_file import load_config
from hsi_se.models.inference import pick_device
from hsi_se.workflows.preparation import Prepared, prepare
from tests.conftest import ROOT, TINY

DEMO = ROOT / "configs" / "demo.yaml"
QUICK = (*TINY, "model.width=0.25", "train.epochs=1", "split.train=0.4")


@pytest.fixture(scope="module")
def given() -> Prepared:
    return prepare(load_config(DEMO, QUICK), data=None, device=pick_device("cpu"))


@pytest.mark.parametrize("is_spatial", [False, True])
def test_no_pixel_is_trained_on_and_held_out(given, is_spatial):
    parts = nested_search.list_parts(given, num_folds=3, seed=0, is_spatial=is_spatial)
    assert len(parts) > 1
    for inside, held in parts:
        assert not set(inside) & set(held)
        assert max(*inside, *held) < len(given.split.training_side)
    held_out = np.concatenate([held for _, held in parts])
    assert len(np.unique(held_out)) == len(held_out)
    assert is_spatial or len(held_out) == len(given.split.training_side)


def test_every_held_out_pixel_is_predicted_for_each_smoothing(given):
    parts = nested_search.list_parts(given, num_folds=3, seed=0, is_spatial=False)
    smoothing = load_config(DEMO, [*QUICK, "prediction.smoothing={}"]).prediction.smoothing
    found = nested_search.predict_held_out(given, parts[:1], {"none": None, "some": smoothing}, seed=0)
    for classes in found.values():
        assert (classes >= 0).nonzero()[0].tolist() == sorted(parts[0][1])
        assert classes.max() < given.scene.num_classes


def test_the_script_prints_and_stores_a_row_for_each_variant_and_smoothing(monkeypatch, tmp_path, capsys):
    out = tmp_path / "found.json"
    changes = shlex.join(QUICK)
    options = ["--folds", "2", "--device", "cpu", "--json", str(out), "--smoothing", "{spatial: 2}"]
    variants = ["--variant", f"one: {changes}", "--variant", f"other: {changes} train.noise=0.5"]
    monkeypatch.setattr(sys, "argv", ["nested_search.py", str(DEMO), *variants, *options])
    nested_search.main()
    rows = json.loads(out.read_text(encoding="utf-8"))
    names = [(row["variant"], row["smoothing"]) for row in rows]
    assert names == [(name, kind) for name in ("one", "other") for kind in ("none", "the config's", "{spatial: 2}")]
    assert capsys.readouterr().out.count("  OA ") == len(rows)
