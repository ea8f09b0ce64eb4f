"""Says what a file is that cannot be read, or why two files do not fit each other, and what to do instead."""

import functools
import itertools
import re
import tomllib
from importlib import resources
from pathlib import Path

from hsi_se.scene.raster import FileContents

TO_RESHAPE = "a cube of bands × pixels must be reshaped to rows × cols × bands"
_UNLABELLED = "if one of these numbers is that of unlabelled pixels, set scene.unlabelled to it"
TO_NUMBERS = (
    "if its colours or bands are classes, save np.unique(a.reshape(-1, a.shape[2]), axis=0, "
    f"return_inverse=True)[1].reshape(a.shape[:2]) + 1; {_UNLABELLED}"
)


@functools.cache
def _read_unread() -> dict[str, dict[str, str]]:
    return tomllib.loads(resources.files("hsi_se.scene").joinpath("unread.toml").read_text("utf-8"))


def is_packed(head: bytes) -> bool:
    """Returns whether a file that begins with these bytes is compressed or an archive."""
    return any(head.startswith(start.encode("latin-1")) for start in _read_unread()["packed"])


def describe_unread(path: Path, head: bytes) -> str:
    """Returns what a file is that cannot be read, by its first bytes or its ending, and what to do."""
    tables, names = _read_unread(), {"file": path, "stem": path.with_suffix("")}
    starts, endings = tables["packed"] | tables["starts"], tables["endings"]
    found = next((text for start, text in starts.items() if head.startswith(start.encode("latin-1"))), None)
    if head[257:262] == b"ustar":
        found = endings[".tar"]
    found = found or endings.get(path.suffix.casefold(), endings[""])
    remedies = {name: text.format(**names) for name, text in tables["remedies"].items()}
    return f"{path}: {found.format(**names, **remedies)}"


def suggest_array(contents: FileContents, *, is_map: bool) -> str:
    """Returns what to do with a file that has no cube, or no label map if `is_map`."""
    listing = contents.listing
    if contents.rasters:
        this = "a cube in place of a label map" if is_map else "a label map in place of a cube"
        return f"this may be {this}; {TO_NUMBERS if is_map else TO_RESHAPE}"
    if re.search(r"<U\d|\|S\d|\bchar\b", listing):
        numbers = "np.unique(a, return_inverse=True)[1].reshape(a.shape) + 1"
        return f"number the names, in alphabetical order: {numbers}; {_UNLABELLED}"
    if re.search(r"\b(group|struct)\b", listing):
        prisma, name = re.search(r"PRS_(L\w+?)_", listing), "a struct or group"
        name = f"a PRISMA {prisma[1]} product" if prisma else name
        name = "a Planet Tanager product" if "SWATHS/HYP/" in listing else name
        return f"{name} is not read yet; save its cube, rows × cols × bands, as an array of its own (np.save)"
    return "give another file"


def explain_sizes(cube: tuple[int, ...], labels: tuple[int, ...]) -> str:
    """Returns what to do about a cube `(rows, cols, bands)` and labels `(rows, cols)` of different sizes."""
    if sorted(labels) == [1, cube[0] * cube[1]]:
        size = f"{cube[0]}, {cube[1]}"
        return f"reshape the labels: labels.reshape({size}), from MATLAB labels.reshape({size}, order='F')"
    orders = [axes for axes in itertools.permutations(range(3)) if (cube[axes[0]], cube[axes[1]]) == labels]
    ways = [*(f"np.transpose(cube, {axes})" for axes in orders), *["labels.T"][: (1, 0, 2) in orders]]
    if ways:
        return f"another order of the axes fits; save {' or '.join(ways)}, whichever is rows × cols × bands"
    return "give two files of the same scene"
