"""A full disk, or a second process in the same folder, ends a training in one line and costs no checkpoint."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsi_se.system import files as durable
from hsi_se.training.checkpoint import list_checkpoints
from tests.processes import Command
from tests.training.resuming import DEMO, OPTIONS, resume, same_weights, train, wait_for_epoch

pytestmark = pytest.mark.usefixtures("one_thread")

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
