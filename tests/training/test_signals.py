"""A signal ends a training after its step, and the run goes on to the weights of one that never was ended."""

import math
import os
import signal
import sys

import pytest

from hsi_se.errors import Interrupted
from hsi_se.runs.folder import RunFolder
from hsi_se.system.processes import listening
from hsi_se.training.checkpoint import list_checkpoints
from tests.processes import Command, Moment
from tests.training.resuming import DEMO, OPTIONS, check_resumed, resume, same_weights, train, wait_for_epoch

pytestmark = pytest.mark.usefixtures("one_thread")

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_after_the_step_with_a_word_how_to_go_on(number, tmp_path):
    run = tmp_path / "run"
    command = train("train.checkpoint_every_s=600", "train.epochs=1000", run=run)
    wait_for_epoch(run, command.is_alive)
    command.send(number)
    assert command.wait() == 128 + number
    text = command.last_line()
    assert text.startswith("hsi-se: interrupted in epoch ")
    assert text.endswith(f"; resume with `hsi-se resume {run}`")
    assert "Traceback" not in command.log.read_text()
    step = int(list_checkpoints(run / "checkpoints")[0].name.split("-")[1])
    assert f"in epoch {math.ceil(step / 3)};" in text, "what the last step has learned is saved"
    assert not (run / ".lock").exists()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("function", ["load_scene", "fit_reduction", "build_model", "_describe_start"])
def test_a_signal_before_the_run_folder_appears_leaves_nothing(function, number, tmp_path):
    log = tmp_path / "log"
    run = tmp_path / "runs" / "run"
    room = "train" if function == "_describe_start" else "preparation"
    moment = Moment(f"hsi_se.workflows.{room}:{function}", number)
    command = Command("train", DEMO, *OPTIONS, "--out", run, "--device", "cpu", log=log, moment=moment)
    assert command.wait() == 128 + number
    assert log.read_text() == "hsi-se: interrupted before training began; rerun the same command\n"
    assert list(tmp_path.iterdir()) == [log]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("function", "number", "call"),
    [
        ("hsi_se.runs.folder:RunFolder.write_start", signal.SIGINT, 1),
        ("hsi_se.system.locks:Held.move", signal.SIGTERM, 1),
        ("hsi_se.runs.lifecycle:sync_folder", signal.SIGINT, 1),  # it has just appeared
        ("hsi_se.runs.lifecycle:until_finished", signal.SIGTERM, 1),
        ("hsi_se.workflows.train:Logged", signal.SIGINT, 1),
        ("hsi_se.workflows.train:fit", signal.SIGTERM, 1),
        ("hsi_se.training.fit:TrainingState", signal.SIGINT, 1),
        ("hsi_se.training.checkpoint:Checkpoints.restore", signal.SIGTERM, 1),
        ("hsi_se.training.fit:Stepper", signal.SIGINT, 1),
        ("torch.nn.functional:cross_entropy", signal.SIGTERM, 1),  # in the first step
    ],
)
def test_a_signal_before_the_first_step_ends_after_it_and_the_run_is_resumed(function, number, call, whole, tmp_path):
    run = tmp_path / "run"
    command = train(run=run, moment=Moment(function, number, call))
    assert command.wait() == 128 + number
    assert command.log.read_text().splitlines()[-1] == (
        f"hsi-se: interrupted in epoch 1; resume with `hsi-se resume {run}`"
    )
    assert [path.name[:13] for path in list_checkpoints(run / "checkpoints")] == ["step-00000001"]
    assert not list(tmp_path.glob(".*"))
    check_resumed(run, whole)


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_last_step_leaves_a_run_of_which_only_the_end_is_left(number, whole, tmp_path):
    run = tmp_path / "run"
    command = train(run=run, moment=Moment("hsi_se.training.state:TrainingState.end_step", number, 24))
    assert command.wait() == 128 + number
    assert "hsi-se: interrupted in epoch 8; " in command.last_line()
    check_resumed(run, whole)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_after_the_last_step_is_obeyed_when_the_run_is_finished(number, whole, tmp_path):
    run = tmp_path / "run"
    command = train(run=run, moment=Moment("hsi_se.workflows.train:count_macs", number))
    assert command.wait() == 128 + number
    assert command.last_line() == f"hsi-se: interrupted; the run {run} is finished"
    assert same_weights(run, whole)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_run_is_resumed_leaves_it_resumable(number, unfinished, whole):
    command = resume(unfinished, moment=Moment("hsi_se.workflows.preparation:load_scene", number))
    assert command.wait() == 128 + number
    assert command.last_line() == f"hsi-se: interrupted; resume with `hsi-se resume {unfinished}`"
    check_resumed(unfinished, whole)


def test_a_signal_while_a_forest_is_fitted_leaves_it_resumable(tmp_path):
    run = tmp_path / "run"
    model = "model={name: random_forest, trees: 3}"
    command = train(model, run=run, moment=Moment("hsi_se.training.classical:fit_classical", signal.SIGTERM))
    assert command.wait() == 143
    assert command.last_line() == f"hsi-se: interrupted; resume with `hsi-se resume {run}`"
    assert resume(run).wait() == 0
    assert RunFolder.open(run)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_second_interrupt_ends_at_once_and_other_signals_wait(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with listening() as stop, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for number in SIGNALS:
            send(number)
        assert stop.signal_number == signal.SIGINT
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "of torchrun, which sends more than one")
    with listening() as stop:
        for _ in range(3):
            send(signal.SIGINT)
        assert stop.signal_number == signal.SIGINT


@pytest.mark.parametrize("number", SIGNALS)
def test_where_nothing_can_be_left_half_done_a_signal_ends_at_once(number):
    with listening() as stop:
        with pytest.raises(Interrupted, match=r"^why$") as caught, stop.at_once("why"):  # noqa: PT012
            send(number)
            pytest.fail("not at once")
        assert caught.value.exit_code == 128 + number
    with listening() as stop, pytest.raises(Interrupted, match=r"^earlier$"):  # noqa: PT012
        send(number)
        with stop.at_once("earlier"):
            pytest.fail("it had come before")


def test_a_signal_whose_exception_is_lost_ends_when_the_block_does(monkeypatch):
    class Dropped:
        def __del__(self) -> None:
            send(signal.SIGTERM)

    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    with listening() as stop, pytest.raises(Interrupted, match=r"^why$"):  # noqa: PT012
        with stop.at_once("why"):
            Dropped()
            assert len(lost) == 1
        pytest.fail("it was forgotten")


@pytest.mark.parametrize("number", SIGNALS)
def test_whoever_listens_inside_another_notes_for_both(number):
    before = signal.getsignal(signal.SIGTERM)
    with (  # noqa: PT012
        pytest.raises(Interrupted, match=r"^outer$"),
        listening(signal.SIGTERM) as outer,
        outer.at_once("outer"),
    ):
        with listening() as inner:
            assert inner is outer
            send(number)
            assert inner.signal_number == number
        pytest.fail("it was forgotten")
    assert signal.getsignal(signal.SIGTERM) is before
