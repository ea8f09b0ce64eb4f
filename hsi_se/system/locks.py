"""One process at a time in a folder that is written to; the lock dies with its process, however that ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hsi_se.errors import RunError


@contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Keeps a folder, which is made if it is missing, for this process until the block ends.

    Args:
        path: the folder. A file `.lock` lies in it meanwhile; one that a killed process left means nothing.
        what: is done in there, as in `making a map`.

    Raises:
        RunError: another process holds the folder.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = path / ".lock"
    while True:
        with lock.open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{path}: another process is {what} in there; let it finish, or name another folder"
                ) from None
            except OSError:
                pass  # some network file systems have no locks, and can be written to all the same
            if not _is_at(stream, lock):  # its last holder has just let go of it
                continue
            try:
                yield
            finally:
                if _is_at(stream, lock):  # and not another's, if somebody has removed this one
                    lock.unlink(missing_ok=True)
            return


def is_held(path: Path) -> bool:
    """Whether a process holds a folder; where the file system has no locks to tell by, one may."""
    try:
        with (path / ".lock").open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _is_at(stream: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
