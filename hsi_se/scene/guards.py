"""Guards against bad files: missing optional libraries, parser errors and impossible array sizes."""

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hsi_se.errors import HsiError, SceneError, how_to_install

_MOST_PER_BYTE = 1100  # deflate compresses at most 1032 bytes into one
_ALWAYS_ALLOWED = 2**24  # bytes: sparse and constant images may be smaller still


def import_extra(name: str, *, path: Path) -> Any:
    """Imports a library of the extra `[geo]` to read a file; raises SceneError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SceneError(f"{path}: reading this file needs {name}; {how_to_install('geo')}") from None


@contextmanager
def blaming(path: Path, what: str, *, remedy: str) -> Iterator[None]:
    """Turns any error that a file-format library raises inside the block into a one-line SceneError."""
    try:
        yield
    except HsiError:
        raise
    except Exception as error:  # a damaged file can make a parser raise anything
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise SceneError(f"{path}: {what} ({line}); {remedy}") from None


def check_declared(
    path: Path, *, shape: Sequence[int], itemsize: int, stored: int, is_packed: bool, cause: str = ""
) -> None:
    """Checks that the `stored` bytes, compressed if `is_packed`, can be an array of the declared size.

    Raises:
        SceneError: a dimension is below 1, the declared size is impossible even with compression, or there
            are more bytes than declared; `cause` is the remedy.
    """
    size = "×".join(map(str, shape))
    if any(length < 1 for length in shape):
        raise SceneError(f"{path}: declares an array of {size}; give one with at least one pixel")
    declared = math.prod(int(length) for length in shape) * itemsize
    if declared > (max(_ALWAYS_ALLOWED, stored * _MOST_PER_BYTE) if is_packed else stored):
        raise SceneError(
            f"{path}: declares an array of {size} ({declared:,} bytes) but contains only {stored:,} bytes "
            f"of data; {cause or 'get the file again'}"
        )
    if not is_packed and stored > declared:
        raise SceneError(
            f"{path}: contains {stored:,} bytes of data, but an array of {size} has {declared:,} bytes; "
            f"{cause or f'if the last {stored - declared:,} are padding, cut them off'}"
        )
