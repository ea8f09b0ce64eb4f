"""Training steps as graphs: the code that replays them, with plain calls in place of a GPU's capture."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import hsi_se
from hsi_se.config.model import ModelSettings
from hsi_se.config.model import Network as NetworkSettings
from hsi_se.config.training import TrainSettings
from hsi_se.config.yaml_file import load_config
from hsi_se.models import build_model
from hsi_se.runs.folder import RunFolder
from hsi_se.sampling.patches import PatchDataset
from hsi_se.system.session import Session
from hsi_se.training import step as step_module
from hsi_se.training.graph import GraphedStep, Outputs
from hsi_se.training.step import Stepper
from hsi_se.workflows.train import resume
from tests.training.resuming import DEMO, OPTIONS, Impatient, Notes, same_weights
from tests.training.test_training import NUM_CLASSES, are_equal, make_model, make_patches, run_fit, state_of

VARIED = {
    "noise": 0.5,
    "spectral_jitter": 0.1,
    "band_dropout": 0.2,
    "shift": 1,
    "class_weights": "sqrt",
    "label_smoothing": 0.1,
    "weight_averaging": 0.9,
}


class Recorder:
    """Captures a function by keeping it; a replay calls it, and copies its outputs to fixed memory."""

    def __init__(self) -> None:
        self.num_captures = self.num_replays = 0

    def __call__(self, run: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        self.num_captures += 1
        state = torch.get_rng_state()
        outputs = tuple(None if value is None else torch.full_like(value, torch.nan) for value in run())
        torch.set_rng_state(state)  # a capture executes nothing

        def replay() -> None:
            self.num_replays += 1
            for fixed, value in zip(outputs, run(), strict=True):
                if fixed is not None and value is not None:
                    fixed.copy_(value)

        return outputs, replay


# Operations for whose results a GPU would have to wait, so that they cannot be part of a graph.
WAITING = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select"}


def list_waiting(run: Callable[[], object]) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    return {event.key for event in found.key_averages()} & WAITING


@pytest.fixture
def recorder(monkeypatch):
    """Lets the CPU take graphed steps."""
    recorder = Recorder()
    monkeypatch.setattr(step_module, "can_capture", lambda _: True)
    monkeypatch.setattr(step_module, "GraphedStep", partial(GraphedStep, capture=recorder))
    return recorder


# Without batch norm: its running statistics would also see the call by which the recorder learns the outputs' shapes.
@pytest.mark.parametrize("changes", [{}, VARIED, {"flips": False}], ids=["flips", "all variations", "none"])
def test_an_epoch_of_graphed_steps_is_one_of_eager_steps(changes, recorder, monkeypatch):
    graphed, eager = make_model(norm="none"), make_model(norm="none")
    result = run_fit(graphed, num_pixels=33, batch_size=8, epochs=3, **changes)  # batches of 6 and 7
    assert recorder.num_captures == 2
    assert recorder.num_replays == 3 * 5 - 2 * 2  # two eager steps of each size
    monkeypatch.setattr(step_module, "can_capture", lambda _: False)
    expected = run_fit(eager, num_pixels=33, batch_size=8, epochs=3, **changes)
    assert [record.loss for record in result.history] == [record.loss for record in expected.history]
    assert are_equal(state_of(graphed), state_of(eager))


def test_one_draw_for_a_batch_is_graphed_too(recorder):
    result = run_fit(make_model(norm="none"), epochs=4, vary_by="batch", noise=0.1)
    assert recorder.num_replays
    assert result.history[-1].loss < result.history[0].loss


def test_no_batch_leaks_into_the_next():
    weight = nn.Parameter(torch.ones(()))
    recorder = Recorder()
    step = GraphedStep(lambda batch: (weight * batch[0].float()).sum(), [weight], on_note=pytest.fail, capture=recorder)
    generator = torch.Generator().manual_seed(0)
    for size in (5, 4, 5, 5, 4, 4, 5, 1, 4, 5, 4, 1, 1, 1):
        batch = torch.randint(100, (2, size), generator=generator)
        loss = step(batch)
        batch[:] = -1_000  # the caller's memory is its own
        assert weight.grad is not None
        assert float(loss) == float(weight.grad)
    assert recorder.num_captures == 3
    sums = [float(step(torch.full((2, size), size))) for size in (5, 1, 4)]
    assert sums == [25, 1, 16]


def test_what_cannot_be_captured_runs_eagerly_and_is_told_once():
    weight, notes = nn.Parameter(torch.ones(())), []

    def refuse(_: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    step = GraphedStep(lambda batch: (weight * batch[0]).sum(), [weight], on_note=notes.append, capture=refuse)
    losses = [float(step(torch.ones(1, 3))) for _ in range(6)]
    assert losses == [3.0] * 6
    (note,) = notes
    assert note == (
        "this network's training step cannot be captured as a CUDA graph (operation not permitted when stream is "
        "capturing), so its kernels are started one by one, which is slower"
    )


@pytest.mark.parametrize("in_step", [1, 5])
def test_a_run_resumed_in_any_step_has_the_weights_of_one_that_was_not(in_step, recorder, tmp_path):
    config = load_config(DEMO, [*OPTIONS[1::2], "model.norm=none", "train.epochs=3"])
    whole = hsi_se.train(config, out=tmp_path / "whole", session=Session(device="cpu"))
    with pytest.raises(hsi_se.errors.Interrupted):
        hsi_se.train(config, out=tmp_path / "run", session=Session(device="cpu", observer=Impatient(in_step=in_step)))
    resume(RunFolder(tmp_path / "run"), session=Session(observer=Notes()))
    assert recorder.num_replays
    assert same_weights(tmp_path / "run", whole)


def test_unused_weights_have_no_gradient():
    used, unused = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
    step = GraphedStep(lambda batch: used * batch.sum(), [used, unused], on_note=pytest.fail, capture=Recorder())
    for _ in range(4):
        step(torch.ones(1, 2))
    assert isinstance(used.grad, Tensor)
    assert unused.grad is None


def test_frozen_weights_stay_as_they_are_with_graphs_too(recorder):
    model = make_model(norm="none")
    first, *_ = frozen = list(model.stages["conv3d_1"].parameters())
    for parameter in frozen:
        parameter.requires_grad_(False)
    before, others = first.clone(), [each.clone() for each in model.stages["conv3d_2"].parameters()]
    run_fit(model, epochs=4)
    assert recorder.num_replays
    assert torch.equal(first, before)
    assert not any(map(torch.equal, others, model.stages["conv3d_2"].parameters()))


NETWORKS: list[dict[str, Any]] = [
    {"name": "hybridsn", "attention": {"fold": {"kind": kind}, "conv2d": {"kind": kind}}}
    for kind in ("se", "eca", "cbam", "nonlocal", "strip_pooling", "coordinate", "gather_excite", "simam")
] + [
    {"name": "hybridsn", "order": "2d-3d"}, {"name": "cnn3d"}, {"name": "ssrn"}, {"name": "spectrum_first"},
    {"name": "se_resnet", "stem": "small"}, {"name": "res2net", "stem": "small"},
    {"name": "se_inception", "stem": "small"},
    {"name": "ssftt"}, {"name": "spectralformer"}, {"name": "dbda"},
]  # fmt: skip


@pytest.mark.parametrize("settings", [*VARIED, "nothing", "vary_by"])
def test_no_variation_or_loss_waits_for_values(settings):
    changes = {key: VARIED[key] for key in VARIED if key == settings}
    if settings == "vary_by":
        changes = {**VARIED, "vary_by": "batch"}
    check_capturable(make_model(), changes)


SLOW = [pytest.param({"name": "s2mamba", "states": 2}, marks=pytest.mark.slow)]  # 249 steps


@pytest.mark.parametrize("settings", [*NETWORKS, *SLOW], ids=str)
def test_no_network_or_block_waits_for_values(settings):
    network = TypeAdapter(ModelSettings).validate_python(settings)
    assert isinstance(network, NetworkSettings)
    model = build_model(network, num_bands=14, patch_size=11, num_classes=NUM_CLASSES)
    check_capturable(model, VARIED, num_bands=14, patch=11)


def check_capturable(
    model: nn.Module, changes: dict[str, Any], *, num_bands: int | None = None, patch: int = 9
) -> None:
    patches = make_patches(12) if num_bands is None else make_scene(num_bands, patch)
    settings = TrainSettings.model_validate({"epochs": 1, **changes})
    step = Stepper(model.train(), train=patches, settings=settings, weight=torch.rand(NUM_CLASSES))
    batch = step._draw(torch.arange(12), torch.Generator())

    def run() -> None:
        torch.autograd.grad(step._compute(batch), list(model.parameters()), allow_unused=True)

    assert not list_waiting(run)


def make_scene(num_bands: int, patch: int) -> PatchDataset:
    rng = np.random.default_rng(0)
    padded = torch.from_numpy(rng.standard_normal((12 + patch, 12 + patch, num_bands)).astype(np.float32))
    pixels = rng.integers(12, size=(12, 2))
    return PatchDataset(padded, pixels, patch_size=patch, targets=rng.integers(NUM_CLASSES, size=12))


def test_the_check_itself_finds_what_waits():
    assert list_waiting(lambda: torch.ones(2).nonzero()) == {"aten::nonzero"}
    assert "aten::item" in list_waiting(lambda: float(torch.ones(())))
    weight = torch.rand(NUM_CLASSES)
    mean = partial(F.cross_entropy, torch.randn(4, NUM_CLASSES), torch.zeros(4, dtype=torch.int64), weight=weight)
    assert "aten::masked_select" in list_waiting(partial(mean, label_smoothing=0.1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0])], ids=str)
def test_the_loss_is_torchs_mean(smoothing, weight):
    settings = TrainSettings(epochs=1, label_smoothing=smoothing)
    step = Stepper(make_model(), train=make_patches(12), settings=settings, weight=weight)
    logits, targets = torch.randn(12, 3), torch.randint(3, (12,))
    expected = F.cross_entropy(logits, targets, weight=weight, label_smoothing=smoothing)
    torch.testing.assert_close(step._mean_loss(logits, targets, slice(None)), expected)
