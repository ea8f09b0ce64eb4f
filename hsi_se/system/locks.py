"""Locks: one process at a time writes to a folder. A lock ends with its process, however that ends."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import lock_descriptor

from hsi_se.errors import RunError

_RENAMES_OPEN = os.name != "nt"  # whether a folder can be renamed while a file in it is open
_LOOKS, _LOOK_S = 3, 0.01  # `is_held` has the lock for a moment, in which nobody is refused


@contextmanager
def hold(path: Path, what: str) -> Iterator["Held"]:
    """Holds a folder, which is made if it is missing, for this process until the block ends.

    It contains a file `.lock` meanwhile; one left by a killed process has no effect. File systems without locks are
    written to without one. RunError if another process holds the folder; `what` is the work, as in `making a map`.
    """
    path.mkdir(parents=True, exist_ok=True)
    held = Held(path, what)
    try:
        yield held
    finally:
        held.release()


class Held:
    """A folder that this process holds."""

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what
        self._stream = self._take()

    def _take(self) -> IO[str]:
        while True:
            stream = (self._path / ".lock").open("a")
            if _lock(stream) is False:
                stream.close()
                remedy = "let it finish, or choose another folder"
                raise RunError(f"{self._path}: another process is {self._what} there; {remedy}")
            if _is_at(stream, self._path / ".lock"):
                return stream
            stream.close()  # its last holder has just removed it

    def move(self, path: Path) -> None:
        """Renames the folder, and the lock moves along; on Windows it is released for a moment."""
        if not _RENAMES_OPEN:
            self.release()
        self._path.rename(path)
        self._path = path
        if not _RENAMES_OPEN:
            self._stream = self._take()

    def release(self) -> None:
        if self._stream.closed:
            return
        with self._stream:
            lock = self._path / ".lock"
            if _is_at(self._stream, lock):  # and not another holder's, if somebody has removed this one
                with suppress(PermissionError):  # Windows removes no open file
                    lock.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether a process holds a folder; True where the file system has no locks to tell by."""
    try:
        lock = path / ".lock"
        with lock.open("r+" if os.access(lock, os.W_OK) else "r") as stream:  # NFS locks what may be written
            return _lock(stream) is not True
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _lock(stream: IO[Any]) -> bool | None:
    """Whether a file could be locked; None where there are no locks."""
    try:
        for _ in range(_LOOKS):
            if lock_descriptor(stream.fileno(), blocking=False):
                return True
            time.sleep(_LOOK_S)
    except OSError:
        return None
    return False


def _is_at(stream: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
