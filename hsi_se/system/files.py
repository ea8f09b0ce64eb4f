"""Files that are whole at every moment, whatever happens to the process or the machine meanwhile."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHUNK = 1 << 20


def write_durably(path: Path, data: bytes) -> None:
    """Writes beside, syncs, reads back, and only then renames into place and syncs the folder.

    Raises:
        OSError: it cannot be written, or reads back as something else; what was at `path` is still there.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        with draft.open("rb") as stream:
            view = memoryview(data)
            parts = (view[start : start + _CHUNK] for start in range(0, len(data) + 1, _CHUNK))
            if any(stream.read(_CHUNK) != part for part in parts):
                raise OSError(errno.EIO, "reads back as something else", str(path))
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a write does not know what it writes to
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Puts on the disk which files a folder holds."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which takes the place of `path` once it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)
