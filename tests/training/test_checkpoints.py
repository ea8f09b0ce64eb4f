"""A checkpoint that is damaged, foreign or a pickle is recognised by name, and the one before is used."""

import errno
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from hsi_se.errors import DivergedError, Interrupted, RunError, TrainingError
from hsi_se.runs.folder import RunFolder
from hsi_se.system.session import Session
from hsi_se.training import fit as fit_module
from hsi_se.training.checkpoint import list_checkpoints, read_checkpoint
from hsi_se.training.distributed import World
from hsi_se.workflows import train as experiment
from tests.training.resuming import Impatient, Notes, change_checkpoint, disguise, resume, same_weights

pytestmark = pytest.mark.usefixtures("one_thread")


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
