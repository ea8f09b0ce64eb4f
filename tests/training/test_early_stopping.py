"""A training that ends by itself: when, why, and to the same weights however often it is interrupted."""

import re

import numpy as np
import pytest
import torch

import hsi_se
from hsi_se.config.training import TrainSettings
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, Interrupted
from hsi_se.progress import EpochRecord
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.loading import load_scene
from hsi_se.system.session import Session
from hsi_se.training.fit import explain_stop
from hsi_se.training.state import TrainingState
from hsi_se.workflows.preparation import prepare
from hsi_se.workflows.train import resume
from tests.conftest import CPU, ROOT, TINY
from tests.training.resuming import Impatient, Notes, same_weights, without_times
from tests.training.test_distributed import options, start
from tests.training.test_training import are_equal, make_model, run_fit, state_of

DEMO = ROOT / "configs" / "demo.yaml"
STOPPING = (
    *TINY,
    "split={kind: random, train: 0.3, validation: 0.3}",
    "model={name: hybridsn, width: 0.125, attention: {}}",
    "train={epochs: 30, batch_size: 32, learning_rate: 3e-3, noise: 0.1, early_stopping: {patience: 2}, "
    "weight_averaging: 0.5, checkpoint_every_s: 0}",
)


def record_epochs(losses: list[float], *, accuracies: list[float] | None = None, epoch_s: float = 60.0):
    return [
        EpochRecord(
            epoch=number,
            loss=0.5,
            validation_accuracy=None if accuracies is None else accuracies[number - 1],
            validation_loss=None if accuracies is None else loss,
            learning_rate=1e-3,
            patches_per_second=1.0,
            elapsed_s=number * epoch_s,
        )
        for number, loss in enumerate(losses, start=1)
    ]


LOSSES, ACCURACIES = [0.9, 0.5, 0.6, 0.5, 0.7, 0.4], [0.5, 0.7, 0.8, 0.6, 0.8, 0.8]


@pytest.mark.parametrize(
    ("monitor", "patience", "expected"),
    [("loss", 2, (4, 2)), ("loss", 3, (5, 2)), ("loss", 4, None), ("accuracy", 2, (5, 3)), ("accuracy", 3, (6, 3))],
)
def test_training_stops_after_as_many_epochs_without_improvement(monitor, patience, expected):
    """An equal value is no improvement."""
    settings = TrainSettings.model_validate({"epochs": 9, "early_stopping": {"patience": patience, "monitor": monitor}})
    history = record_epochs(LOSSES, accuracies=ACCURACIES)
    reasons = [explain_stop(history[:done], settings) for done in range(7)]
    stopped = next((done for done, reason in enumerate(reasons) if reason), None)
    assert stopped == (expected and expected[0])
    if expected:
        assert reasons[expected[0]] == (
            f"training stopped after epoch {expected[0]} of 9: the validation {monitor} has not improved since epoch "
            f"{expected[1]} (train.early_stopping.patience = {patience})"
        )


def test_no_epoch_begins_that_would_end_after_the_limit():
    history = record_epochs([0.5] * 6)  # of a minute each
    for minutes, last in ((0.5, 1), (1.9, 1), (2, 2), (4.5, 4)):
        settings = TrainSettings(epochs=6, max_minutes=minutes)
        assert not explain_stop([], settings), "the first epoch is always trained"
        reasons = [explain_stop(history[:done], settings) for done in range(1, 7)]
        assert [bool(reason) for reason in reasons[:-1]] == [done >= last for done in range(1, 6)]
        assert not reasons[-1], "the last epoch is no early end"
    assert explain_stop(history[:4], settings) == (
        "training stopped after epoch 4 of 6: 0:04:00 of training, and an epoch takes up to 0:01:00 "
        "(train.max_minutes = 4.5)"
    )


def test_the_epochs_are_those_of_a_longer_training_with_the_same_schedule():
    """The moving average is what is validated."""
    given = {"epochs": 12, "learning_rate": 1e-2, "weight_averaging": 0.9}
    whole = run_fit(make_model(width=0.125), **given)
    losses = [record.validation_loss for record in whole.history]
    model = make_model(width=0.125)
    found = run_fit(model, **given, early_stopping={"patience": 1})
    last = next(done for done in range(2, 13) if losses[done - 1] >= min(losses[: done - 1]))
    assert last < 12, "else nothing stops early"
    assert len(found.history) == last
    assert [record.loss for record in found.history] == [record.loss for record in whole.history[:last]]
    assert found.stopped.startswith(f"training stopped after epoch {last} of 12: ")
    assert found.notes == (found.stopped,)
    other = make_model(width=0.125)
    assert run_fit(other, **given, early_stopping={"patience": 1}).best_epoch == found.best_epoch <= last
    assert are_equal(state_of(model), state_of(other))


def test_a_time_limit_ends_a_training_between_two_epochs(monkeypatch):
    monkeypatch.setattr(TrainingState, "elapsed_s", property(lambda self: 30.0 * self.steps))
    found = run_fit(make_model(width=0.125), epochs=5, batch_size=40, max_minutes=1.2)  # an epoch has one step
    assert len(found.history) == 2
    assert found.stopped.endswith("(train.max_minutes = 1.2)")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> RunFolder:
    config = load_config(DEMO, STOPPING)
    return hsi_se.train(config, out=tmp_path_factory.mktemp("stopped") / "run", session=CPU)


@pytest.mark.usefixtures("quick_baseline")
def test_the_record_and_the_reports_say_when_and_why_training_stopped(stopped):
    record = stopped.read_record()
    assert 2 < len(record.history) < 30
    reason = f"training stopped after epoch {len(record.history)} of 30: the validation loss has not improved since"
    assert record.stopped.startswith(reason)
    assert record.notes[-1] == record.stopped
    hsi_se.evaluate(stopped, session=CPU)
    for file in (stopped.report_text, stopped.page):
        assert reason in file.read_text(encoding="utf-8")


def test_an_interrupted_training_stops_at_the_same_epoch_with_the_same_weights(stopped, tmp_path):
    whole = stopped.read_record()
    step = len(whole.history) * -(-whole.num_train // 32) - 1  # the last but one
    with pytest.raises(Interrupted):
        hsi_se.train(
            load_config(DEMO, STOPPING),
            out=tmp_path / "run",
            session=Session(device="cpu", observer=Impatient(in_step=step)),
        )
    observer = Notes()
    resume(tmp_path / "run", session=Session(observer=observer))
    assert same_weights(tmp_path / "run", stopped)
    assert without_times(RunFolder(tmp_path / "run")) == without_times(stopped)
    assert observer.notes[-1] == whole.stopped == RunFolder(tmp_path / "run").read_record().stopped


def test_a_run_that_was_stopped_during_calibration_is_not_trained_any_further(stopped, tmp_path):
    """Calibration follows the early end, whose checkpoint is kept."""

    class AtCalibration(Notes):
        def start(self, task: str, *, total: int, unit: str) -> None:
            del total, unit
            if task.startswith("calibration"):
                raise KeyboardInterrupt

    rarely = STOPPING[-1].replace("checkpoint_every_s: 0", "checkpoint_every_s: 600")
    config = load_config(DEMO, [*STOPPING[:-1], rarely, "prediction.calibration=cross-fit"])
    with pytest.raises(Interrupted):
        hsi_se.train(config, out=tmp_path / "run", session=Session(device="cpu", observer=AtCalibration()))
    tasks: list[str] = []

    class Tasks(Notes):
        def start(self, task: str, *, total: int, unit: str) -> None:
            del total, unit
            tasks.append(task)

        def epoch(self, record: object) -> None:
            raise AssertionError(f"trained again: {record}")

    resume(tmp_path / "run", session=Session(observer=Tasks()))
    mine, theirs = (RunFolder(path).read_bundle().weights for path in (tmp_path / "run", stopped))
    assert all((mine[name] == value).all() for name, value in theirs.items())
    assert RunFolder(tmp_path / "run").read_record().stopped == stopped.read_record().stopped
    assert any(task.startswith("calibration: fold") for task in tasks)


def test_the_networks_of_the_calibration_have_the_schedule_of_the_stopped_one(stopped):
    rates: list[float] = []

    class Rates(Notes):
        def epoch(self, record: object) -> None:
            assert isinstance(record, EpochRecord)
            rates.append(record.learning_rate)

    given = prepare(load_config(DEMO, STOPPING), data=None, device=torch.device("cpu"))
    given.fit_again(given.split.train, epochs=3, seed=1, observer=Rates())
    assert rates == [record.learning_rate for record in stopped.read_record().history[:3]]


def test_a_partition_without_validation_pixels_is_refused_before_training(tmp_path):
    is_labelled = load_scene(load_config(DEMO, TINY).scene).labels > 0
    partition = np.where(np.arange(24)[:, None] < 12, 1, 3) * is_labelled
    np.savez(tmp_path / "parts.npz", parts=partition)
    split = f"split={{kind: masks, partition: {tmp_path / 'parts.npz'}}}"
    message = "train.early_stopping: needs validation pixels, and the split sets none aside; set some aside"
    with pytest.raises(ConfigError, match=re.escape(message)):
        hsi_se.train(load_config(DEMO, [*STOPPING, split]), out=tmp_path / "run", session=CPU)
    assert not (tmp_path / "run").exists()


@pytest.mark.exhaustive
def test_two_processes_stop_at_the_same_epoch(tmp_path):
    """Each with its own clock: the first one decides."""
    log = tmp_path / "log"
    changes = ["train={epochs: 500, batch_size: 32, max_minutes: 0.01, precision: float32}"]
    run = start("-m", "--", "hsi_se", "train", *options(*changes, epochs=1), "--out", tmp_path / "run", log=log)
    assert run.wait(timeout=120) == 0, log.read_text()
    record = RunFolder.open(tmp_path / "run").read_record()
    assert len(record.history) < 500
    assert record.stopped.endswith("(train.max_minutes = 0.01)")
    assert record.history[-1].elapsed_s <= 1.5
