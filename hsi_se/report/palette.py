"""Colours of the split, and class colours that colour-blind readers can distinguish."""

import itertools
import tomllib
from collections.abc import Iterable
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from hsi_se.sampling.disjoint import Side, SideMap
from hsi_se.scene.raster import Colour as Colour

SIDE_COLOURS: dict[int, tuple[str, str]] = {
    Side.UNUSED: ("unlabelled", "#202020"),
    Side.TRAIN: ("training", "#f2b134"),
    Side.VALIDATION: ("validation", "#e4572e"),
    Side.TEST: ("test", "#3f88c5"),
    Side.BUFFER: ("buffer, unused", "#8f8f8f"),
}


def describe_sides(sides: SideMap | NDArray[np.int32], *, num_folds: int = 0) -> dict[int, tuple[str, str]]:
    """Returns the name with the number of pixels, and the colour, of each side of a split that has pixels.

    With `num_folds`, the map is one of fold numbers from 1.
    """
    entries: dict[int, tuple[str, str]] = dict(SIDE_COLOURS)
    if num_folds:
        of_folds = make_distinct_palette(range(1, num_folds + 1)).items()
        entries = {0: entries[0], **{fold: (f"fold {fold}", to_hex(colour)) for fold, colour in of_folds}}
    return {
        side: (f"{name}: {count:,}", colour)
        for side, (name, colour) in entries.items()
        if (count := np.count_nonzero(sides == side))
    }


def to_hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def make_distinct_palette(class_ids: Iterable[int]) -> dict[int, Colour]:
    """Returns an 8-bit RGB colour for each label, also distinct for colour-blind readers.

    Labels take the colours of `palette.toml` in ascending order; beyond its end the colours repeat.
    """
    colours = tomllib.loads(resources.files("hsi_se.report").joinpath("palette.toml").read_text("utf-8"))["distinct"]
    labels = sorted(int(label) for label in class_ids)
    return {label: to_rgb(colour) for label, colour in zip(labels, itertools.cycle(colours), strict=False)}


def to_rgb(colour: str) -> Colour:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
