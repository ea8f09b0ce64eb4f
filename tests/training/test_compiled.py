"""`train.compile`: one program for the step, the same arithmetic; a machine that cannot says so."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from benchmarks.step_profile import profile_training
from hsi_se.config.training import TrainSettings
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError
from hsi_se.training.step import Stepper
from tests.conftest import ROOT, TINY
from tests.training.test_training import are_equal, make_model, make_patches, run_fit, state_of

# What torch's own compiler imports warns of torch's own past.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

DEMO = ROOT / "configs" / "demo.yaml"


def step_and_get_gradients(sizes: tuple[int, ...], **changes: object) -> list[dict[str, torch.Tensor]]:
    """Of one network without dropout, for a batch of each size."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model, patches = make_model(dropout=0), make_patches()
    settings = TrainSettings.model_validate({"epochs": 1, "batch_size": 16, **changes})
    step, generator = Stepper(model, train=patches, settings=settings), torch.Generator().manual_seed(0)
    gradients = []
    for size in sizes:
        model.zero_grad()
        index = torch.arange(size)
        F.cross_entropy(step(index, generator=generator), patches.targets[index]).backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
    return gradients


@pytest.mark.slow
def test_the_compiled_step_has_the_gradients_of_the_other_for_both_sizes_of_batch():
    torch._dynamo.utils.counters.clear()
    plain = step_and_get_gradients((16, 15, 16))
    assert not torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled = step_and_get_gradients((16, 15, 16), compile=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # a program for each size
    for one, other in zip(plain, compiled, strict=True):
        largest = max(float(gradient.abs().max()) for gradient in one.values())
        for name in one:
            assert torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5 * largest), name


@pytest.mark.slow
def test_a_compiled_training_learns_and_is_the_same_twice():
    ends = []
    for _ in range(2):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = make_model()
        result = run_fit(model, epochs=3, compile=True)
        assert result.history[-1].loss < result.history[0].loss
        ends.append(state_of(model))
    assert are_equal(*ends)


def test_patches_do_not_share_in_a_compiled_step():
    settings = TrainSettings(epochs=1, batch_size=16, vary_by="batch", compile=True)
    assert "train.compile" in Stepper(make_model(), train=make_patches(), settings=settings).obstacle


def test_a_compiled_step_has_no_stages_to_time():
    with pytest.raises(ConfigError, match=r"train\.compile = true: the stages of a compiled step cannot be timed"):
        profile_training(load_config(DEMO, [*TINY, "train.compile=true"]))


@pytest.mark.slow
def test_a_machine_without_a_compiler_says_so_in_one_line(tmp_path):
    sets = [f"--set={change}" for change in (*TINY, "train.compile=true")]
    done = subprocess.run(
        [sys.executable, "-m", "hsi_se", "train", DEMO, "--out", tmp_path / "run", *sets],
        env={**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hsi-se: ")]
    assert "train.compile = true: torch cannot compile here" in line
    assert line.endswith("install a C++ compiler (a GPU needs triton too), or leave train.compile out")
