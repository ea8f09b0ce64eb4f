"""A training that is killed, starved or told to stop goes on to the weights of one that never was."""

import errno
import hashlib
import itertools
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import hsi_se
from hsi_se.config.training import TrainSettings
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import DivergedError, Interrupted, RunError, TrainingError
from hsi_se.progress import Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.system import files as durable
from hsi_se.system.processes import Stop, listening
from hsi_se.system.session import Session
from hsi_se.training import checkpoint
from hsi_se.training import fit as fit_module
from hsi_se.training import step as step_module
from hsi_se.training.checkpoint import Checkpoints, list_checkpoints, read_checkpoint
from hsi_se.training.distributed import World
from hsi_se.training.state import TrainingState
from hsi_se.workflows import train as experiment
from tests.conftest import ROOT, TINY, set_options
from tests.processes import Command, Moment
from tests.training.test_training import are_equal, make_model, run_fit, state_of

DEMO = ROOT / "configs" / "demo.yaml"
# Whatever draws at random is on; a checkpoint after each of the 24 steps.
RESTLESS = (
    "train={epochs: 8, batch_size: 16, noise: 0.1, shift: 1, spectral_jitter: 0.1, band_dropout: 0.1, "
    "weight_averaging: 0.9, checkpoint_every_s: 0}"
)
OPTIONS = set_options(*TINY, "model.width=0.25", RESTLESS)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As in the processes: the bits depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Notes(Silent):
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, task: str, *, total: int, unit: str) -> None: ...
    def advance(self, count: int) -> None: ...
    def epoch(self, record: object) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)


class Impatient(Notes):
    """Ends the training in a step, as Ctrl-C would."""

    def __init__(self, *, in_step: int, look: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._left, self._look = in_step, look

    def advance(self, _count: int) -> None:
        self._look()
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


def train(*changes: str, run: Path, **limits: int | Moment) -> Command:
    log, options = run.with_name(f"{run.name}.log"), set_options(*OPTIONS[1::2], *changes)
    return Command("train", DEMO, *options, "--out", run, "--device", "cpu", log=log, **limits)


def resume(run: Path, **limits: int | Moment) -> Command:
    return Command("resume", run, log=run.with_name(f"{run.name}.log"), **limits)


def wait_for_epoch(run: Path, is_alive: Callable[[], bool]) -> None:
    """Until the progress of a training has the line of its first epoch."""
    progress = RunFolder(run).progress
    while not progress.is_file() or progress.read_bytes().count(b"\n") < 2:
        assert is_alive(), "ended early"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, _one_thread) -> RunFolder:
    """The run that nothing interrupts."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train(run=run).wait() == 0
    return RunFolder.open(run)


@pytest.fixture(scope="module")
def killed(tmp_path_factory, _one_thread) -> Path:
    """A run that was ended in its 13th step, with two checkpoints."""
    run = tmp_path_factory.mktemp("killed") / "run"
    config = load_config(DEMO, OPTIONS[1::2])
    with pytest.raises(Interrupted, match=rf"interrupted; resume with `hsi_se.resume\(\"{run}\"\)`"):
        hsi_se.train(config, out=run, session=Session(device="cpu", observer=Impatient(in_step=13)))
    assert len(list_checkpoints(run / "checkpoints")) == 2
    return run


@pytest.fixture
def unfinished(killed, tmp_path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "run"))


def same_weights(run: Path, whole: RunFolder) -> bool:
    return RunFolder.open(run).bundle_arrays.read_bytes() == whole.bundle_arrays.read_bytes()


def without_times(run: RunFolder) -> list[dict[str, object]]:
    times = {"patches_per_second", "elapsed_s"}
    return [record.model_dump(exclude=times) for record in run.read_record().history]


# ------------------------------------------------------------------------------------ kills


def check_resumed(run: Path, whole: RunFolder) -> None:
    """A run that was ended is resumed to the files, weights and epochs of the whole one."""
    assert resume(run).wait() == 0
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.path.iterdir()}
    assert same_weights(run, whole)
    assert without_times(RunFolder(run)) == without_times(whole)
    assert RunFolder(run).read_progress()[1] == RunFolder(run).read_record().history


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "function",
    [
        "hsi_se.training.state:TrainingState.end_step",
        "hsi_se.system.files:_holds",  # a checkpoint's draft is on the disk
        "hsi_se.system.files:sync_folder",  # a checkpoint has its name
    ],
)
def test_killed_in_a_step_or_a_write_it_goes_on_to_the_same_weights(function, whole, tmp_path):
    for call in sorted(random.Random(function).sample(range(4, 24), 5)):  # after the folder is begun
        run = tmp_path / f"run-{call}"
        command = train(run=run, moment=Moment(function, signal.SIGKILL, call))
        assert command.wait() == -signal.SIGKILL
        assert RunFolder(run).is_unfinished
        assert any((run / "checkpoints").glob(".*.draft")) == function.endswith("_holds")
        check_resumed(run, whole)


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ended_at_any_moment_a_run_is_whole_or_resumable_or_not_there(number, whole, tmp_path):
    """Whatever moment that is, so that a slow machine only makes it another one."""
    command = train(run=tmp_path / "timed")
    command.wait_for_start()
    start = time.perf_counter()
    assert command.wait() == 0
    life_s = time.perf_counter() - start
    rng = random.Random(number)
    for part in range(8):
        run = tmp_path / f"run-{part}"
        command = train(run=run)
        command.wait_for_start()
        time.sleep(life_s * (part + rng.random()) / 8)  # a moment: any will do
        command.send(number)
        code = command.wait()
        if number == signal.SIGKILL:
            assert code in (0, -number)
        else:
            assert code in (0, 128 + number)
        if code > 0:
            assert command.last_line().startswith("hsi-se: interrupted")
            assert "Traceback" not in command.log.read_text()
            assert not list(tmp_path.glob(".*")), "drafts are gone"
        if RunFolder(run).is_unfinished:
            check_resumed(run, whole)
        elif run.exists():
            assert same_weights(run, whole)
        else:
            assert code != 0


CHANGES = [
    {}, {"precision": "bfloat16"}, {"weight_averaging": 0.9}, {"noise": 0.5}, {"shift": 1},
    {"spectral_jitter": 0.2}, {"band_dropout": 0.3}, {"schedule": "cosine"}, {"schedule": "constant"},
    {"class_weights": "sqrt"}, {"vary_by": "batch", "noise": 0.5},
]  # fmt: skip


class Quitter:
    """Keeps a training like another keeper, up to a step; there it ends it."""

    def __init__(self, keeper: Checkpoints, *, step: int) -> None:
        self._keeper, self._step = keeper, step
        self.restore, self.after_epoch = keeper.restore, keeper.after_epoch

    def after_step(self, state: TrainingState) -> None:
        self._keeper.after_step(state)
        if state.steps == self._step:
            raise ZeroDivisionError


def make_keeper(folder: Path, *, every_s: float = 0, notes: list[str] | None = None) -> Checkpoints:
    def note(text: str) -> None:
        assert notes is not None, text
        notes.append(text)

    return Checkpoints(folder=folder, run="this", every_s=every_s, stop=Stop(), note=note, rewind=lambda _: None)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_stopped_after_any_step_it_goes_on_to_the_same_weights(change, tmp_path, monkeypatch):
    monkeypatch.setattr(step_module, "SHARED_COST", 0)  # whatever can share does
    whole = make_model()
    expected = run_fit(whole, num_pixels=41, **change)
    for step in random.Random(str(change)).sample(range(1, 10), 3):  # of 3 epochs with 3 steps each
        folder = tmp_path / str(step)
        with pytest.raises(ZeroDivisionError):
            run_fit(make_model(), num_pixels=41, keeper=Quitter(make_keeper(folder), step=step), **change)
        torch.rand(3)  # a new process does not have the generator where this one has it
        model = make_model()
        result = run_fit(model, num_pixels=41, keeper=make_keeper(folder), **change)
        assert are_equal(state_of(model), state_of(whole))
        assert result.best_epoch == expected.best_epoch
        assert [record.loss for record in result.history] == [record.loss for record in expected.history]


@pytest.mark.parametrize("part", ["optimizer", "schedule", "average", "generators", "order", "total_loss"])
def test_without_any_part_of_the_state_the_weights_or_the_losses_are_others(part, tmp_path, monkeypatch):
    change = {"noise": 0.5, "weight_averaging": 0.9}
    whole = make_model()
    expected = run_fit(whole, num_pixels=41, **change)
    with pytest.raises(ZeroDivisionError):
        run_fit(make_model(), num_pixels=41, keeper=Quitter(make_keeper(tmp_path), step=5), **change)
    load = TrainingState.load

    def forget(state: TrainingState, saved: dict[str, object]) -> None:
        fresh = {**state.save(), "order": torch.arange(41), "average": state.save()["average"]}
        load(state, {**saved, part: fresh[part]})

    monkeypatch.setattr(TrainingState, "load", forget)
    model = make_model()
    result = run_fit(model, num_pixels=41, keeper=make_keeper(tmp_path), **change)
    assert not are_equal(state_of(model), state_of(whole)) or [r.loss for r in result.history] != [
        record.loss for record in expected.history
    ]


# ------------------------------------------------------------------------------------ signals


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


# ------------------------------------------------------------------------------------ full disks


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system that holds two checkpoints and no third."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=440k", "tmpfs", disk]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        if os.environ.get("CI"):  # may mount: there the test must run
            raise
        pytest.skip("only who may mount can make a small disk; the test of the file size limit runs")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_ends_with_one_line_and_two_checkpoints(small_disk, whole, tmp_path):
    run = small_disk / "run"
    log = tmp_path / "log"
    command = Command("train", DEMO, *OPTIONS, "--out", run, "--device", "cpu", log=log)
    assert command.wait() == 2
    said = [line for line in log.read_text().splitlines() if not line.startswith(("training", "note"))]
    assert len(said) == 1
    assert said[0].startswith(f"hsi-se: {run}/checkpoints/step-")
    assert said[0].endswith(f"No space left on device; make room, then resume with `hsi-se resume {run}`")
    assert len(list_checkpoints(run / "checkpoints")) == 2
    assert not any((run / "checkpoints").glob(".*")), "what did not fit is gone"
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    assert Command("resume", run, log=log).wait() == 0
    assert same_weights(run, whole)


def test_a_file_size_limit_ends_with_one_line_and_the_checkpoints_before(unfinished, whole):
    before = list_checkpoints(unfinished / "checkpoints")
    command = resume(unfinished, max_file_size=1 << 16)
    assert command.wait() == 2
    assert command.last_line().startswith(f"hsi-se: {unfinished}/checkpoints/step-")
    assert "File too large; make room, then resume with" in command.last_line()
    assert list_checkpoints(unfinished / "checkpoints") == before
    assert resume(unfinished).wait() == 0
    assert same_weights(unfinished, whole)


def test_a_disk_without_room_for_a_checkpoint_leaves_a_run_that_can_begin_anew(whole, tmp_path):
    run = tmp_path / "run"
    command = train(run=run, max_file_size=1 << 16)
    assert command.wait() == 2
    assert command.last_line().endswith(f"File too large; make room, then resume with `hsi-se resume {run}`")
    assert resume(run).wait() == 0
    assert same_weights(run, whole)


def test_a_disk_without_room_for_the_split_leaves_nothing(tmp_path):
    command = train(run=tmp_path / "run", max_file_size=1 << 10)
    assert command.wait() == 2
    assert "File too large; check the path, its permissions and the free disk space" in command.last_line()
    assert not (tmp_path / "run").exists()


def test_a_file_that_does_not_read_back_never_replaces_another(tmp_path, monkeypatch):
    path = tmp_path / "file"
    durable.write_durably(path, b"old")

    def lose(descriptor: int) -> None:
        if not os.path.samestat(os.fstat(descriptor), tmp_path.stat()):
            os.truncate(descriptor, 2)

    monkeypatch.setattr(os, "fsync", lose)
    with pytest.raises(OSError, match="reads back differently"):
        durable.write_durably(path, b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


# ------------------------------------------------------------------------------------ two at once


def test_a_second_process_in_the_same_folder_is_refused(whole, call, tmp_path):
    run = tmp_path / "run"
    first = train(run=run)
    wait_for_epoch(run, first.is_alive)
    first.send(signal.SIGSTOP)  # it is at it as long as the others take
    for arguments in (
        ["resume", run],
        ["train", DEMO, *OPTIONS, "--out", run],
        ["train", DEMO, *OPTIONS, "--out", run, "--overwrite"],
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert err == f"hsi-se: {run}: another process is training there; let it finish, or choose another folder\n"
    first.send(signal.SIGCONT)
    assert first.wait() == 0
    assert same_weights(run, whole)


def test_of_two_that_start_together_one_is_refused(whole, tmp_path):
    run = tmp_path / "run"
    commands = [
        Command("train", DEMO, *OPTIONS, "--out", run, "--device", "cpu", log=tmp_path / name)
        for name in ("one", "other")
    ]
    assert sorted(command.wait() for command in commands) == [0, 2]
    refused = next(command for command in commands if command.wait() == 2)
    assert refused.last_line().startswith(f"hsi-se: {run}: another process ")
    assert same_weights(run, whole)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "one", "other"}


# ------------------------------------------------------------------------------------ damaged and foreign


def test_a_truncated_checkpoint_is_recognised_and_the_one_before_used(unfinished, whole):
    newest, _ = list_checkpoints(unfinished / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-1000])
    observer = Notes()
    experiment.resume(unfinished, session=Session(observer=observer))
    assert observer.notes == [
        f"{newest}: is damaged, truncated or not a checkpoint (its SHA-256 does not match its name); "
        "using the previous checkpoint"
    ]
    assert same_weights(unfinished, whole)


def test_a_damaged_checkpoint_is_none_of_the_two_that_are_kept(unfinished):
    newest, previous = list_checkpoints(unfinished / "checkpoints")
    newest.write_bytes(b"")
    kept = []

    def look() -> None:
        kept.append(list_checkpoints(unfinished / "checkpoints"))

    with pytest.raises(Interrupted):
        experiment.resume(unfinished, session=Session(observer=Impatient(in_step=2, look=look)))
    assert previous in kept[0]
    assert newest not in kept[0]
    whole = list_checkpoints(unfinished / "checkpoints")
    assert len(whole) == 2
    assert all(read_checkpoint(path) for path in whole)


def test_a_checkpoint_that_the_disk_does_not_give_back_is_named_and_the_one_before_used(unfinished, whole, monkeypatch):
    newest, _ = list_checkpoints(unfinished / "checkpoints")
    read_bytes = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path == newest:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    observer = Notes()
    experiment.resume(unfinished, session=Session(observer=observer))
    assert observer.notes == [f"{newest}: cannot be read (Input/output error); using the previous checkpoint"]
    assert same_weights(unfinished, whole)


def test_a_mistake_in_resuming_costs_no_checkpoint(unfinished, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise TrainingError("--nproc-per-node: 3 processes cannot share batches of 2 patches; start fewer")

    before = list_checkpoints(unfinished / "checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr(World, "check_batches", refuse)
        with pytest.raises(TrainingError, match="3 processes"):
            experiment.resume(unfinished)
    assert list_checkpoints(unfinished / "checkpoints") == before
    assert not (unfinished / ".lock").exists()


def test_a_training_that_diverges_leaves_nothing(unfinished, monkeypatch):
    monkeypatch.setattr(fit_module, "_is_finite", lambda *_: False)
    with pytest.raises(DivergedError):
        experiment.resume(unfinished)
    assert not unfinished.exists()


def test_a_single_changed_bit_is_recognised(unfinished):
    newest, previous = list_checkpoints(unfinished / "checkpoints")
    previous.write_bytes(b"")  # first: of two of one step, the one written last is the newest
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    with pytest.raises(
        RunError, match=rf"{previous}: is damaged.*no usable checkpoint is left; train again with --over"
    ):
        experiment.resume(unfinished)
    assert newest.exists(), "nothing is lost"


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def disguise(data: bytes, folder: Path) -> Path:
    """Writes bytes under a checkpoint's name, its digest right."""
    path = folder / f"step-99999999-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["pickle", "torch", "wrong digest"])
def test_a_pickle_is_refused_by_name_and_never_executed(kind, unfinished, whole, tmp_path, call):
    sprung = tmp_path / "sprung"
    torch.save(Trap(sprung), tmp_path / "trap.pt")
    data = pickle.dumps(Trap(sprung)) if kind == "pickle" else (tmp_path / "trap.pt").read_bytes()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists(), "else the trap proves nothing"
    sprung.unlink()

    path = disguise(data, unfinished / "checkpoints")
    if kind == "wrong digest":
        path = path.rename(path.with_name(f"step-99999999-{'0' * 16}.safetensors"))
    command = resume(unfinished)
    assert command.wait() == 0
    assert f"note: {path}: is " in command.log.read_text()
    assert "using the previous checkpoint" in command.log.read_text()
    assert not sprung.exists()
    assert same_weights(unfinished, whole)

    alone = RunFolder(shutil.copytree(unfinished, tmp_path / "alone"))
    alone.record.unlink()
    alone.checkpoints.mkdir()
    path = disguise(data, alone.checkpoints)
    code, out, err = call("resume", alone)
    assert (code, out) == (2, "")
    assert err.startswith(f"hsi-se: {path}: is not a checkpoint (")
    assert err.count("\n") == 1
    assert not sprung.exists()


def change_checkpoint(path: Path, **changes: object) -> Path:
    """Writes a checkpoint with other contents, its digest right, in place of one."""
    content = {**read_checkpoint(path), **changes}
    for other in list_checkpoints(path.parent):
        other.unlink()
    return disguise(checkpoint._to_bytes(content), path.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": "another"}, "is a checkpoint of another run"),
        ({"format": 0, "hsi_se": "0.0.1"}, r"was written by hsi-se 0\.0\.1; resume with that version"),
        ({"training": {}}, r"is not a checkpoint of this run \('model'\)"),
        ({"training": {"model": {"weight": torch.zeros(3)}}}, "is not a checkpoint of this run .*Missing key"),
        ({"training": 3}, "is not a checkpoint of this run"),
    ],
    ids=str,
)
def test_a_checkpoint_of_something_else_is_refused_by_name(changes, message, unfinished):
    path = change_checkpoint(list_checkpoints(unfinished / "checkpoints")[0], **changes)
    with pytest.raises(RunError, match=f"{path}: {message}"):
        experiment.resume(unfinished)
    assert path.exists()


def test_another_number_of_threads_is_said(unfinished):
    change_checkpoint(list_checkpoints(unfinished / "checkpoints")[0], threads=64)
    observer = Notes()
    experiment.resume(unfinished, session=Session(observer=observer))
    now = torch.get_num_threads()
    assert observer.notes == [
        f"saved with threads = 64, resumed with threads = {now}: weights may differ in the last bits"
    ]


# ------------------------------------------------------------------------------------ what `resume` takes


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([DEMO], "unexpected argument "), (["--set", "seed=1"], "unknown option --set"),
        (["--seeds", "0-2"], "unknown option --seeds"), (["--device", "cuda"], "unknown option --device"),
        (["--out", "other"], "unknown option --out"), (["--overwrite"], "unknown option --overwrite"),
    ],
    ids=str,
)  # fmt: skip
def test_a_run_resumes_as_it_began_and_takes_nothing_but_a_data_folder(options, problem, unfinished, call):
    code, out, err = call("resume", unfinished, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"hsi-se resume: {problem}")
    assert err.endswith("; see `hsi-se resume --help`\n")


def test_what_cannot_be_resumed_is_refused_in_one_line(whole, call, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (whole, f"is finished; evaluate it with `hsi-se eval {whole}`"),
        (tmp_path / "nowhere", "no such run folder; `hsi-se train` prints the path it writes"),
        (DEMO, f"is a file; name a run folder (`hsi-se train {DEMO}` prints its path)"),
        (tmp_path / "empty", "not a run folder (progress.jsonl is missing); name one that train wrote"),
    ):
        assert call("resume", folder) == (2, "", f"hsi-se: {folder}: {message}\n")
    assert call("resume") == (2, "", "hsi-se resume: missing argument 'RUN'; see `hsi-se resume --help`\n")


def test_a_changed_config_scene_or_split_is_not_gone_on_with(unfinished, monkeypatch):
    folder = RunFolder(unfinished)
    text = folder.config.read_text()
    folder.config.write_text(text.replace("epochs: 8", "epochs: 9"))
    with pytest.raises(RunError, match=r"config\.yaml: changed since the run began"):
        experiment.resume(unfinished)
    folder.config.write_text(text)

    split = folder.split.read_bytes()
    config = load_config(DEMO, [*TINY, "seed=5"])
    other = hsi_se.make_split(hsi_se.load_scene(config.scene), config.split, seed=5)
    start, _ = folder.read_progress()
    folder.write_start(start, config=folder.read_config(), split=other)
    with pytest.raises(RunError, match=r"split\.safetensors: changed since the run began"):
        experiment.resume(unfinished)
    folder.split.write_bytes(split)

    head = json.loads(start.model_dump_json())
    folder.progress.write_text(json.dumps({**head, "scene_digest": "0" * 64}) + "\n")
    with pytest.raises(RunError, match="was trained on another edition of "):
        experiment.resume(unfinished)
    folder.progress.write_text(json.dumps({**head, "device_kind": "cuda"}) + "\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(hsi_se.errors.TrainingError, match="--device cuda: PyTorch found no CUDA device"):
        experiment.resume(unfinished)
    assert folder.has_checkpoint


def test_without_a_checkpoint_a_run_begins_anew(unfinished, whole):
    shutil.rmtree(unfinished / "checkpoints")
    observer = Notes()
    experiment.resume(unfinished, session=Session(observer=observer))
    assert observer.notes[0] == f"{unfinished}: has no checkpoint yet; starting from the beginning"
    assert same_weights(unfinished, whole)


def test_an_unfinished_run_is_replaced_only_when_asked(unfinished, whole, call):
    code, _, err = call("train", DEMO, *OPTIONS, "--out", unfinished)
    assert code == 2
    assert err.startswith(f"hsi-se: {unfinished}: contains an unfinished run; resume with `hsi-se resume ")
    code, _, _ = call("train", DEMO, *OPTIONS, "--out", unfinished, "--overwrite")
    assert code == 0
    assert same_weights(unfinished, whole)


# ------------------------------------------------------------------------------------ cost


@pytest.mark.parametrize("cost_s", [0.003, 0.5, 20.0])
@pytest.mark.parametrize("epoch_s", [10.0, 2000.0])
def test_saving_takes_a_hundredth_of_the_time_and_a_minute_is_lost_at_most_where_that_allows(
    cost_s, epoch_s, tmp_path, monkeypatch
):
    now = [0.0]
    saves: list[float] = []

    def write(path: Path, data: bytes) -> None:
        del path, data
        now[0] += cost_s
        saves.append(now[0])

    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(checkpoint, "write_durably", write)
    keeper = make_keeper(tmp_path / "checkpoints", every_s=60)
    model = torch.nn.Linear(1, 1)
    settings = TrainSettings(epochs=2, batch_size=2)
    state = TrainingState(model, settings, num_patches=4, seed=0)
    while len(saves) < 4:
        for _ in range(10):
            now[0] += epoch_s / 10
            keeper.after_step(state)
        keeper.after_epoch(state, is_last=False)
    assert len(saves[1:]) * cost_s <= 0.0101 * (now[0] - saves[0])
    longest = max(after - before for before, after in itertools.pairwise(saves))
    assert longest <= max(60, 100 * cost_s) + cost_s + epoch_s / 10 + 1e-6
