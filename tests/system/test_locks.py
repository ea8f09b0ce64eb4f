"""A folder is written by one process at a time; who holds it is asked of processes of their own."""

import errno
import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hsi_se.errors import RunError
from hsi_se.system import locks
from hsi_se.system.locks import hold, is_held

HOLD = """
import sys
from pathlib import Path
from hsi_se.system.locks import hold
with hold(Path(sys.argv[1]), "at work"):
    print("held", flush=True)
    sys.stdin.readline()
"""
INCREMENT = """
import sys
from pathlib import Path
from hsi_se.errors import RunError
from hsi_se.system.locks import hold
folder, todo = Path(sys.argv[1]), 200
while todo:
    try:
        with hold(folder, "counting"):
            count = folder / "count"
            count.write_text(str(int(count.read_text()) + 1))
            todo -= 1
    except RunError:
        pass
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, folder]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_held_folder_is_refused_until_its_process_ends(tmp_path):
    folder = tmp_path / "new" / "run"
    with start_holder(folder) as holder:
        with pytest.raises(RunError, match=r"run: another process is training there; let it finish"):
            hold(folder, "training").__enter__()
        holder.stdin.write("\n")
    with hold(folder, "training"):
        pass
    assert list(folder.iterdir()) == []


def test_whether_a_folder_is_held_is_seen_without_taking_it(tmp_path):
    assert not is_held(tmp_path)
    with start_holder(tmp_path) as holder:
        assert is_held(tmp_path)
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / ".lock").exists()
    assert not is_held(tmp_path)


def test_the_lock_of_a_killed_process_means_nothing(tmp_path):
    with start_holder(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / ".lock").exists()
    with hold(tmp_path, "training"):
        pass


def test_a_block_that_fails_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), hold(tmp_path, "dividing"):
        _ = 1 / 0
    with hold(tmp_path, "training"):
        pass


def test_processes_that_take_turns_never_meet(tmp_path):
    """Each removes the file that the next one locks: an update would be lost if two held the folder."""
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", INCREMENT, tmp_path]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait(timeout=120) == 0
    assert (tmp_path / "count").read_text() == "600"


def test_a_file_system_without_locks_can_be_written_to(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold(tmp_path, "training"):
        assert is_held(tmp_path), "nothing says that it is not"


def test_the_lock_of_another_holder_is_not_taken_away_with_ones_own(tmp_path):
    with hold(tmp_path, "training"):
        (tmp_path / ".lock").unlink()  # as the end of a run does, before its holder lets go
        other = start_holder(tmp_path)
    with pytest.raises(RunError, match="another process is training"):
        hold(tmp_path, "training").__enter__()
    other.communicate("\n")


@pytest.mark.parametrize("renames_open", [True, False], ids=["here", "windows"])
def test_the_lock_moves_along_with_a_renamed_folder(renames_open, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_RENAMES_OPEN", renames_open)
    draft, run = tmp_path / ".draft", tmp_path / "run"
    with hold(draft, "training") as held:
        held.move(run)
        assert not draft.exists()
        assert is_held(run)
        with pytest.raises(RunError, match="another process is training there"):
            hold(run, "training").__enter__()
    assert list(run.iterdir()) == []
    assert not is_held(run)


def test_a_folder_that_cannot_be_renamed_is_released_once(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_RENAMES_OPEN", False)
    (tmp_path / "taken" / "run").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty"), hold(tmp_path / "draft", "training") as held:
        held.move(tmp_path / "taken")
    assert not is_held(tmp_path / "draft")


WATCH = """
import sys
from pathlib import Path
from hsi_se.system.locks import is_held
print("watching", flush=True)
while True:
    is_held(Path(sys.argv[1]))
"""


def test_whoever_looks_whether_a_folder_is_held_is_not_in_the_way_of_its_holder(tmp_path):
    (tmp_path / ".lock").touch()  # of a killed process: it can be locked to look
    command = [sys.executable, "-c", WATCH, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        try:
            assert watcher.stdout.readline() == "watching\n"
            for _ in range(200):
                with hold(tmp_path, "training"):
                    assert is_held(tmp_path)
        finally:
            watcher.kill()
