"""Batch norm's statistics from the scene: the means that numpy finds, and nothing else changed."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError
from hsi_se.sampling.patches import WHOLE, PatchSource
from hsi_se.training.adapt import adapt_norms
from tests.conftest import ROOT, TINY

DEMO = ROOT / "configs" / "demo.yaml"
CUBE = np.random.default_rng(0).normal(3.0, 2.0, size=(16, 16, 6)).astype(np.float32)
VALID = np.ones((16, 16), dtype=bool)
SOURCE = PatchSource(CUBE, patch_size=1, padding="zero", windows=(WHOLE,), device=torch.device("cpu"))


def test_statistics_become_those_of_the_patches_and_modes_and_weights_stay():
    model = nn.Sequential(nn.Flatten(1, 2), nn.BatchNorm2d(6), nn.Dropout(0.5), nn.Flatten(), nn.Linear(6, 2))
    model.train()
    model[2].eval()
    weights = {name: p.clone() for name, p in model.named_parameters()}
    adapt_norms(model, SOURCE, VALID, seed=0, batch_size=256)
    np.testing.assert_allclose(model[1].running_mean, CUBE.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(model[1].running_var, CUBE.var((0, 1), ddof=1), rtol=1e-5)
    assert (model[1].momentum, model.training, model[1].training, model[2].training) == (0.1, True, True, False)
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())


def test_a_large_scene_is_sampled_by_the_seed():
    def adapt(seed: int) -> torch.Tensor:
        model = nn.Sequential(nn.Flatten(1, 2), nn.BatchNorm2d(6))
        adapt_norms(model, SOURCE, VALID, seed=seed, max_patches=50)
        return model[1].running_mean

    assert torch.equal(adapt(1), adapt(1))
    assert not torch.equal(adapt(1), adapt(2))


def test_a_run_says_that_batch_norm_saw_the_scene_and_its_weights_are_the_plain_runs(tmp_path):
    runs = [
        hsi_se.train(load_config(DEMO, (*TINY, f"train.norm_statistics={kind}")), out=tmp_path / kind)
        for kind in ("train", "scene")
    ]
    plain, adapted = (hsi_se.load_bundle(run).weights for run in runs)
    different = {name for name in plain if not np.array_equal(plain[name], adapted[name])}
    statistics = {name for name in plain if name.endswith(("running_mean", "running_var"))}
    assert {name for name in different if not name.endswith("num_batches_tracked")} == statistics
    assert any("including test pixels" in note for note in runs[1].read_record().notes)
    assert not any("including test pixels" in note for note in runs[0].read_record().notes)
    hsi_se.evaluate(runs[1])
    assert "including test pixels" in runs[1].report_text.read_text()
    assert any("including test pixels" in note for note in json.loads(runs[1].report.read_text())["notes"])


def test_without_batch_norm_the_setting_is_refused():
    with pytest.raises(
        ConfigError, match=r"train\.norm_statistics.*model\.norm: none leaves the network without batch norm"
    ):
        load_config(DEMO, (*TINY, "model.norm=none", "train.norm_statistics=scene"))
