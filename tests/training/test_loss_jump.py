"""A learning rate that is too high is noticed in the first steps; wide layers have a lower one."""

import math
import re

import numpy as np
import pytest
import torch

import hsi_se
from hsi_se import build_model
from hsi_se.config.model import HybridSN
from hsi_se.config.training import TrainSettings
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import DivergedError
from hsi_se.models.network import Network
from hsi_se.progress import Silent
from hsi_se.sampling.patches import PatchDataset, pad_cube
from hsi_se.training import fit as fit_module
from hsi_se.training.fit import FitResult, explain_jump, fit
from hsi_se.training.state import MOST_INPUTS, make_optimizer
from tests.conftest import CPU, ROOT, TINY
from tests.training.resuming import Quitter, make_keeper
from tests.training.test_distributed import options, start
from tests.training.test_training import NUM_CLASSES, make_model, make_patches, run_fit

DEMO = ROOT / "configs" / "demo.yaml"
TOO_HIGH = {"learning_rate": 0.3, "schedule": "constant", "epochs": 2, "precision": "float32"}
JUMPED = re.compile(
    r"train\.learning_rate = (?P<rate>\S+): the loss jumped from (?P<before>\S+) to (?P<after>\S+) in step "
    r"(?P<step>\d+), so this rate is too high for the network; try (?P<lower>\S+)"
)


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def train(**changes: object) -> tuple[FitResult, list[str]]:
    """The result of a small training, and the notes that it passed on."""
    model = make_model(norm=changes.pop("norm", "batch"))
    observer, patches = Notes(), make_patches()
    settings = TrainSettings.model_validate({"epochs": 3, "batch_size": 16, **changes})
    result = fit(
        model, train=patches, val=make_patches(0), num_classes=NUM_CLASSES, settings=settings, seed=0,
        observer=observer,
    )  # fmt: skip
    return result, observer.notes


# ------------------------------------------------------------------------------------ what a jump is


@pytest.mark.parametrize(
    ("losses", "jump"),
    [
        ([3.7, 3.5, 230.0, 90.0], ("3", "3.6", "230")),
        ([4.561, 140.027, 94.501], ("2", "4.56", "140")),  # the 2-D convolution first, at 3e-3
        ([2.0, 1.0, math.inf, math.nan], ("3", "1.5", "inf")),
        ([2.0, 1.0, 1.0, 1.0, 14.0, 200.0], ("5", "1.25", "14")),
    ],
)
def test_a_jump_names_its_step_and_the_losses_before_and_after(losses, jump):
    found = JUMPED.fullmatch(explain_jump(torch.tensor(losses), TrainSettings(epochs=1)))
    assert found is not None
    assert (found["step"], found["before"], found["after"]) == jump


@pytest.mark.parametrize(("rate", "lower"), [(3e-3, "0.0003"), (5e-4, "5e-05"), (0.1, "0.001"), (1.0, "0.001")])
def test_the_rate_to_try_is_a_tenth_and_at_most_the_default(rate, lower):
    settings = TrainSettings(epochs=1, learning_rate=rate)
    assert explain_jump(torch.tensor([1.0, 20.0]), settings).endswith(f"; try {lower}")


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [3.7],
        [3.7, 36.0],  # less than ten times
        [3.7, 6.3, 5.5, 5.3, 3.7, 4.2, 2.1],
        [2.7, *[0.01] * 500, 8.0],  # one misclassified pixel of a rare class in a network that has learned
        [0.01, *[0.001] * 5, 0.02],
        [2.0, math.nan, math.nan],  # reported as a divergence
    ],
    ids=lambda losses: f"{losses[:3]}",
)
def test_a_loss_that_falls_or_fluctuates_has_no_jump(losses):
    assert explain_jump(torch.tensor(losses), TrainSettings(epochs=1)) == ""


@pytest.mark.parametrize(("epochs", "num_steps"), [(7, 7), (1, 3)])
def test_jumps_are_looked_for_while_the_one_cycle_schedule_rises_but_at_least_an_epoch(epochs, num_steps):
    settings = TrainSettings(epochs=epochs, batch_size=16)
    state = fit_module.TrainingState(make_model(), settings, num_patches=40, seed=0)
    assert len(state.first_losses) == num_steps
    rates = []
    for _ in range(epochs * 3):
        rates.append(state.schedule.get_last_lr()[0])
        state.optimizer.step()  # without gradients nothing changes
        state.schedule.step()
    assert int(np.argmax(rates)) + 1 <= num_steps


# ---------------------------------------------------------------------------------- in a training


@pytest.mark.parametrize(
    "change",
    [
        TOO_HIGH,
        {"learning_rate": 1.0},  # one-cycle: the third step
        {"learning_rate": 0.1, "schedule": "constant", "norm": "none"},
        {"learning_rate": 0.1, "schedule": "cosine"},
        {**TOO_HIGH, "vary_by": "batch"},
        {**TOO_HIGH, "precision": "bfloat16"},
        {**TOO_HIGH, "weight_averaging": 0.9},
    ],
    ids=str,
)
def test_a_training_whose_loss_jumps_says_so_once_and_the_value_to_try_is_silent(change):
    result, notes = train(**change)
    assert tuple(notes) == result.notes
    (note,) = notes
    found = JUMPED.fullmatch(note)
    assert found is not None, note
    assert float(found["rate"]) == change["learning_rate"]
    assert float(found["after"]) > 10 * float(found["before"])
    assert float(found["lower"]) <= change["learning_rate"] / 10
    assert train(**{**change, "learning_rate": float(found["lower"])})[1] == []


@pytest.mark.parametrize(
    "change",
    [
        {}, {"learning_rate": 3e-3}, {"schedule": "constant", "learning_rate": 3e-3}, {"schedule": "cosine"},
        {"batch_size": 2, "class_weights": "balanced", "learning_rate": 3e-3, "epochs": 8},
        {"label_smoothing": 0.1, "noise": 1.0, "class_weights": "sqrt"}, {"norm": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_a_healthy_training_is_silent(change):
    result, notes = train(**change)
    assert notes == []
    assert result.notes == ()


def test_the_losses_named_are_those_of_the_steps(monkeypatch):
    losses: list[float] = []
    end_step = fit_module.TrainingState.end_step

    def spy(state, loss, *, num_patches):
        losses.append(float(loss))
        end_step(state, loss, num_patches=num_patches)

    monkeypatch.setattr(fit_module.TrainingState, "end_step", spy)
    found = JUMPED.fullmatch(train(learning_rate=1.0)[1][0])
    step = int(found["step"])
    assert found["before"] == f"{sum(losses[: step - 1]) / (step - 1):.3g}"
    assert found["after"] == f"{losses[step - 1]:.3g}"


def test_the_losses_are_read_from_the_device_only_now_and_then(monkeypatch):
    looks = []
    monkeypatch.setattr(fit_module, "explain_jump", lambda losses, _: looks.append(len(losses)))
    run_fit(make_model(), num_pixels=40, batch_size=4, epochs=3)  # 3 epochs of 10 steps
    assert looks == [0, 1, 2, 4, 8, 10, 10]  # the last one, after step 16, sees the first 10 losses again


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_resumed_training_still_says_so(step, tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_fit(make_model(), keeper=Quitter(make_keeper(tmp_path), step=step), **TOO_HIGH)
    assert run_fit(make_model(), keeper=make_keeper(tmp_path), **TOO_HIGH).notes == train(**TOO_HIGH)[0].notes


def test_before_it_diverges_a_training_says_that_its_loss_has_jumped():
    observer, settings = Notes(), TrainSettings(epochs=3, batch_size=16, learning_rate=1e4)
    with pytest.raises(DivergedError, match=r"lower the learning rate, for example to 0\.001, or check"):
        fit(
            make_model(norm="none"), train=make_patches(), val=make_patches(0), num_classes=NUM_CLASSES,
            settings=settings, seed=0, observer=observer,
        )  # fmt: skip
    (note,) = observer.notes
    assert JUMPED.fullmatch(note)


def test_the_note_is_in_the_record_and_in_the_report(tmp_path):
    config = load_config(DEMO, [*TINY, "train={epochs: 2, batch_size: 16, learning_rate: 1.0}"])
    run = hsi_se.train(config, out=tmp_path / "run", session=CPU)
    (note,) = [note for note in run.read_record().notes if JUMPED.fullmatch(note)]
    hsi_se.evaluate(run)
    assert note in (run.path / "report.md").read_text(encoding="utf-8")
    assert note in run.read_report().notes


@pytest.mark.slow
def test_of_two_processes_one_says_so(tmp_path):
    high = "train={epochs: 2, batch_size: 16, learning_rate: 1.0}"
    log = tmp_path / "log"
    command = ("-m", "--", "hsi_se", "train", *options(high, epochs=2), "--out", tmp_path / "run")
    assert start(*command, log=log).wait(timeout=120) == 0, log.read_text()
    assert log.read_text().count("the loss jumped from") == 1


# ------------------------------------------------------------------------ the rate of wide layers


def make_2d_first(*, patch_size: int = 15) -> Network:
    settings = HybridSN.model_validate({"name": "hybridsn", "order": "2d-3d"})
    return build_model(settings, num_bands=20, patch_size=patch_size, num_classes=NUM_CLASSES)


def test_the_2d_first_networks_loss_does_not_jump_at_the_rate_of_the_other_order():
    """At 3e-3 for every layer, the loss went from 4.6 to 140 in the second step."""
    rng = np.random.default_rng(0)
    padded = pad_cube(rng.normal(size=(20, 20, 20)).astype(np.float32), patch_size=15, padding="reflect")
    patches = PatchDataset(padded, np.argwhere(np.eye(20)), patch_size=15, targets=np.arange(20) % NUM_CLASSES)
    settings = TrainSettings(epochs=2, batch_size=10, learning_rate=3e-3, schedule="constant")
    observer = Notes()
    result = fit(
        make_2d_first(), train=patches, val=patches, num_classes=NUM_CLASSES, settings=settings, seed=0,
        observer=observer,
    )  # fmt: skip
    assert max(record.loss for record in result.history) < 10
    assert observer.notes == []


def test_the_number_of_inputs_is_in_the_description_of_the_setting_and_in_the_guide():
    described = TrainSettings.model_fields["learning_rate"].description
    guide = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    assert f"more than {MOST_INPUTS:,} inputs" in str(described)
    assert f"more than {MOST_INPUTS:,} inputs" in guide


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_a_weight_of_more_than_5184_inputs_has_a_rate_inversely_proportional_to_them(schedule):
    settings = TrainSettings(epochs=10, batch_size=16, learning_rate=3e-3, schedule=schedule)
    model = make_2d_first()
    state = fit_module.TrainingState(model, settings, num_patches=32, seed=0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for _ in range(20):
        rates = {names[id(p)]: group["lr"] for group in state.optimizer.param_groups for p in group["params"]}
        assert set(rates) == set(names.values())
        wide = rates.pop("head.0.weight")
        (rate,) = set(rates.values())
        assert rate == state.schedule.get_last_lr()[0]  # as reported
        assert wide / rate == pytest.approx(5184 / (32 * 52 * 7 * 7))
        state.optimizer.step()  # without gradients nothing changes
        state.schedule.step()


@pytest.mark.parametrize("model", [{"pool": "mean"}, {"order": "3d-2d"}, {"order": "3d-2d", "patch_size": 17}])
def test_narrower_networks_have_one_rate(model):
    patch_size = model.pop("patch_size", 15)
    settings = HybridSN.model_validate({"name": "hybridsn", "order": "2d-3d", **model})
    network = build_model(settings, num_bands=20, patch_size=patch_size, num_classes=NUM_CLASSES)
    groups = make_optimizer(network, TrainSettings(epochs=1)).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 1e-2), (1e-3, 0.0)]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
