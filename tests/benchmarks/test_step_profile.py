"""Where a step's time goes: the parts are the whole, the MACs those that torch counts."""

import sys

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step_profile import DRAWN, main, profile_steps, profile_training
from hsi_se.config.model import HybridSN
from hsi_se.config.training import TrainSettings
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError
from hsi_se.models import build_model
from tests.conftest import ROOT, TINY
from tests.training.test_training import NUM_CLASSES, make_patches

DEMO = ROOT / "configs" / "demo.yaml"
ATTENTION = {"fold": {"kind": "se"}, "conv2d": {"kind": "se"}}


def make_network(**changes: object):
    config = HybridSN.model_validate({"name": "hybridsn", "attention": ATTENTION, **changes})
    return build_model(config, num_bands=15, patch_size=9, num_classes=NUM_CLASSES)


def profile(vary_by: str, batch_size: int, **changes: object):
    settings = TrainSettings.model_validate({"epochs": 1, "batch_size": batch_size, "vary_by": vary_by})
    return profile_steps(make_network(**changes), train=make_patches(200), settings=settings, seed=0)


@pytest.mark.parametrize("vary_by", ["patch", "batch"])
def test_the_parts_of_a_step_are_the_whole(vary_by):
    found = profile(vary_by, 128)
    parts = sum(stage.forward_s + stage.backward_s for stage in found.stages)
    assert found.step_s / 5 < parts < 5 * found.step_s  # medians of different steps, on a busy machine
    names = [stage.name for stage in found.stages]
    assert names == [
        DRAWN, "conv3d_1", "conv3d_2", "conv3d_3", "fold", "attention.fold", "conv2d", "attention.conv2d",
        "head", "loss", "optimizer",
    ]  # fmt: skip
    assert all(stage.backward_s > 0 for stage in found.stages if stage.macs)


def test_without_a_gate_the_profile_has_a_row_for_cutting_patches():
    names = [stage.name for stage in profile("batch", 128, attention={}).stages]
    assert names[5:8] == ["conv2d", "cutting patches", "head"]


def test_the_macs_of_a_step_are_those_that_torch_counts_forward_and_backward():
    found, model, patches = profile("patch", 16), make_network(), make_patches(16)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(patches.gather(torch.arange(16))), patches.targets).backward()
    of_stages = sum(stage.macs for stage in found.stages)
    # torch counts products only. Squeeze, scaling and nonlinearities of 96 maps of 3 × 3 values and 64 of one
    # come on top, once forward and twice backward.
    others = 2 * 96 * 9 + 6 + 96 + 2 * 64 + 4 + 64
    assert counter.get_total_flops() == 2 * (of_stages - 3 * 16 * others)
    assert found.floor_s < found.step_s


def test_the_profile_says_which_way_a_batch_went_and_why():
    crowded, single = profile("batch", 128), profile("patch", 128)
    assert crowded.cost is not None
    assert crowded.cost.is_shared
    assert single.cost is None
    assert "flips" in single.obstacle


def test_the_script_prints_a_row_for_each_stage_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [word for change in TINY for word in ("--set", change)]
    monkeypatch.setattr(sys, "argv", ["step_profile", str(DEMO), *overrides, "--set", "train.vary_by=batch"])
    main()
    out = capsys.readouterr().out
    assert all(name in out for name in ("conv3d_1", "attention.fold", "head", "optimizer", "matrix product"))
    assert "The last batch was computed" in out
    assert not list(tmp_path.iterdir())


def test_what_has_no_steps_cannot_be_profiled():
    svm = load_config(DEMO, (*TINY, "model={name: svm}"))
    with pytest.raises(ConfigError, match=r"model.name = svm: this model is not trained in steps"):
        profile_training(svm)
