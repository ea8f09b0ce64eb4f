"""Guards against files that cannot be read or do not fit each other, and says what to do instead."""

import importlib
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hsi_se.errors import HsiError, SceneError, how_to_install
from hsi_se.system.files import read_facts

_JOINERS = "\u200c\u200d"  # which some scripts need within words
_UNREAD = "hsi_se.scene", "unread.toml"
MOST_PER_BYTE = 1100  # deflate compresses at most 1032 bytes into one
ALWAYS_ALLOWED = 2**24  # bytes: sparse and constant images may be smaller still


def tell(reason: str, /, **facts: object) -> str:
    """Returns what is wrong, by the name of the sentence in `messages.toml`."""
    texts = read_facts("hsi_se.scene", "messages.toml").values()
    return str(next(table[reason] for table in texts if reason in table)).format(**facts)


def refuse(where: Path | str, reason: str, /, **facts: object) -> SceneError:
    """Returns the error in a file, a setting or a scene; see `tell`."""
    return SceneError(f"{where}: {tell(reason, **facts)}")


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


def read_xml(path: Path, *, longest: int) -> ElementTree.Element:
    """Returns the root of an XML file of at most `longest` bytes, without entities, which could expand without end."""
    with path.open("rb") as stream:
        text = stream.read(longest + 1)
    if len(text) > longest or b"<!ENTITY" in text:
        raise ValueError("it is too long or defines entities")
    return ElementTree.fromstring(text)


def check_declared(
    path: Path, *, shape: Sequence[int], itemsize: int, stored: int, is_packed: bool, cause: str = ""
) -> None:
    """Checks that the `stored` bytes, compressed if `is_packed`, can be an array of the declared size.

    SceneError if a dimension is below 1, the declared size is impossible even with compression, or there are more
    bytes than declared; `cause` is the remedy.
    """
    size = "×".join(map(str, shape))
    if any(length < 1 for length in shape):
        raise SceneError(f"{path}: declares an array of {size}; give one with at least one pixel")
    declared = math.prod(int(length) for length in shape) * itemsize
    facts: dict[str, object] = {"size": size, "declared": declared, "stored": stored}
    if declared > (max(ALWAYS_ALLOWED, stored * MOST_PER_BYTE) if is_packed else stored):
        raise refuse(path, "declares", **facts, remedy=cause or "get the file again")
    if not is_packed and stored > declared:
        padding = f"if the last {stored - declared:,} are padding, cut them off"
        raise refuse(path, "contains", **facts, remedy=cause or padding)


def to_printable(text: str) -> str:
    """Returns a text with a space for each control character, line break, or half of a pair of code units."""
    return (
        text
        if text.isprintable()
        else "".join(sign if sign.isprintable() or sign in _JOINERS else " " for sign in text)
    )


def is_packed(head: bytes) -> bool:
    """Returns whether a file that begins with these bytes is compressed or an archive."""
    return any(head.startswith(start.encode("latin-1")) for start in read_facts(*_UNREAD)["packed"])


def describe_unread(path: Path, head: bytes) -> str:
    """Returns what a file is that cannot be read, by its first bytes or its ending, and what to do."""
    tables, names = read_facts(*_UNREAD), {"file": path, "stem": path.with_suffix("")}
    starts, endings = tables["packed"] | tables["starts"], tables["endings"]
    found = next((text for start, text in starts.items() if head.startswith(start.encode("latin-1"))), None)
    if head[257:262] == b"ustar":
        found = endings[".tar"]
    found = found or endings.get(path.suffix.casefold(), endings[""])
    remedies = {name: text.format(**names) for name, text in tables["remedies"].items()}
    return f"{path}: {found.format(**names, **remedies)}"


def explain_sizes(cube: tuple[int, ...], labels: tuple[int, ...], stored: tuple[int, ...]) -> str:
    """Returns what to do about a cube and labels of different sizes; see `check_same_size` for the arguments."""
    if sorted(labels) == [1, cube[0] * cube[1]]:
        size = f"{cube[0]}, {cube[1]}"
        return f"reshape the labels: labels.reshape({size}), from MATLAB labels.reshape({size}, order='F')"
    ways = [f"set scene.axes: {order}" for order in list_orders(stored, labels)]
    ways += ["transpose the labels (labels.T)"] * (cube[1::-1] == labels)
    return f"another order of the axes fits: {' or '.join(ways)}" if ways else "give two files of the same scene"


def list_orders(stored: tuple[int, ...], labels: tuple[int, ...], *, bands: Sequence[int] = (0, 1, 2)) -> list[str]:
    """Returns the orders of axes, with that of the bands among `bands`, in which a 3-D array has the labels' size."""
    orders = itertools.permutations(("rows", "cols", "bands")) if len(stored) == 3 else ()
    sizes = [(order, dict(zip(order, stored, strict=True))) for order in orders if order.index("bands") in bands]
    return ["-".join(order) for order, size in sizes if (size["rows"], size["cols"]) == labels]
