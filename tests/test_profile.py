"""Where a step's time goes: the parts are the whole, the MACs those that torch counts."""

import platform
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hsi_se.config import TrainSettings
from hsi_se.config_model import HybridSN
from hsi_se.models import build_model
from hsi_se.training.allocator import keep_freed_memory
from hsi_se.training.profile import profile_steps
from hsi_se.training.step import DRAWN
from tests.conftest import ROOT, TINY
from tests.test_training import NUM_CLASSES, make_patches

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
    assert counter.get_total_flops() == 2 * sum(stage.macs for stage in found.stages)
    assert found.floor_s < found.step_s


def test_the_profile_says_which_way_a_batch_went_and_why():
    crowded, single = profile("batch", 128), profile("patch", 128)
    assert crowded.cost is not None
    assert crowded.cost.is_shared
    assert single.cost is None
    assert "flips" in single.obstacle


def test_the_command_prints_a_row_for_each_stage_and_writes_nothing(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [word for change in TINY for word in ("--set", change)]
    code, out, _ = call("train", DEMO, *overrides, "--profile", "--set", "train.vary_by=batch")
    assert code == 0
    assert all(name in out for name in ("conv3d_1", "attention.fold", "head", "optimizer", "matrix product"))
    assert "The last batch went" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--seeds", "0-1"), "--profile: writes no run; leave --seeds, --run and --overwrite out"),
        (("--run", "here"), "--profile: writes no run"),
        (("--overwrite",), "--profile: writes no run"),
        (("--set", "model={name: svm}"), "model.name = svm: is fitted at once; leave --profile out"),
    ],
    ids=str,
)
def test_what_a_profile_cannot_do_is_refused(call, words, error):
    code, _, err = call("train", DEMO, "--profile", *words)
    assert code == 2
    assert error in err


# Takes 64 MB, writes to them and frees them, again and again; prints how many pages the kernel had to find.
FAULTS = """
import ctypes, resource
from hsi_se.training.allocator import keep_freed_memory
assert {keep} is None or keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
def use():
    block = ctypes.c_void_p(c.malloc(ctypes.c_size_t(2**26)))
    c.memset(block, 1, ctypes.c_size_t(2**26))
    c.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_was_freed_is_not_fetched_from_the_kernel_again():
    faults = {
        keep: int(subprocess.check_output([sys.executable, "-c", FAULTS.format(keep=keep)], text=True))
        for keep in (None, True)
    }
    if platform.libc_ver()[0] != "glibc":  # other C libraries are left alone
        assert not keep_freed_memory()
        return
    assert faults[None] > 1000
    assert faults[True] < 100
