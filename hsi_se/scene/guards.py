"""Guards for reading files: optional libraries, errors blamed on a file, and sizes that cannot be true."""

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hsi_se.errors import HsiError, SceneError

_MOST_PER_BYTE = 1100  # deflate packs 1032 bytes into one at most
_ALWAYS_ALLOWED = 2**24  # bytes: sparse and constant images may pack tighter than deflate


def import_extra(name: str, *, path: Path) -> Any:
    """Returns a library that only some files need, of the extra `[geo]`.

    Raises:
        SceneError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SceneError(f"{path}: reading it needs {name}; pip install 'hsi-se[geo]'") from None


@contextmanager
def blaming(path: Path, what: str, *, remedy: str) -> Iterator[None]:
    """Turns any error of a format's library inside the block into one line about the file."""
    try:
        yield
    except HsiError:
        raise
    except Exception as error:  # a foreign file can break a parser in any way
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise SceneError(f"{path}: {what} ({line}); {remedy}") from None


def check_declared(path: Path, *, shape: Sequence[int], itemsize: int, stored: int, is_packed: bool) -> None:
    """Proves that an array of a declared size can come out of the bytes that are there.

    Args:
        path: the file, for the message.
        shape: as declared.
        itemsize: bytes a value.
        stored: bytes that the file holds for it.
        is_packed: whether they may be compressed.

    Raises:
        SceneError: a size is below one, or no compression makes so much out of so little.
    """
    size = "×".join(map(str, shape))
    if any(length < 1 for length in shape):
        raise SceneError(f"{path}: declares an array of {size}; give one with at least one pixel")
    declared = math.prod(int(length) for length in shape) * itemsize
    if declared > (max(_ALWAYS_ALLOWED, stored * _MOST_PER_BYTE) if is_packed else stored):
        raise SceneError(
            f"{path}: declares an array of {size}, {declared:,} bytes, which {stored:,} bytes of data "
            "cannot hold; get the file again"
        )
