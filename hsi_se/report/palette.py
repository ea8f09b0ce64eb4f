"""Colours of the split, and class colours that colour-blind readers can distinguish."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hsi_se.sampling.disjoint import Side, SideMap
from hsi_se.scene.raster import Colour as Colour

# Each as far as can be from those before it, with normal colour vision and with each kind of dichromacy;
# `tests/report/test_palette.py` computes them.
_DISTINCT = (
    "eeffaa", "3322ee", "dd4400", "88aaee", "771155", "eeaa00", "996699", "55eeff", "aa0000", "6677ee",
    "552299", "aa9988", "ddccaa", "884466", "aaff00", "ee7744", "7755bb", "bb6666", "8888cc", "ccaabb",
    "77ccff", "2200cc", "664488", "335522", "aadd66", "99bb77", "ffddcc", "662277", "bb7799", "bb4444",
    "aa88ff", "7744ff", "55aa55", "8866cc", "ccffff", "885588", "ccee77", "993344", "55aacc", "ffaadd",
    "5544aa", "995566", "882266", "558877", "77cc44", "77ee00", "cc88bb", "2266dd", "bbcc88", "dd6600",
    "00cc99", "ddaa99", "cc3300", "cc5544", "229999", "ee88dd", "dd9900", "990022", "6666aa", "7777bb",
    "665599", "ddddaa", "7722cc", "9977dd",
)  # fmt: skip

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

    Labels take the colours of the table in ascending order; beyond its end the colours repeat.
    """
    palette = {}
    for place, label in enumerate(sorted(int(label) for label in class_ids)):
        red, green, blue = bytes.fromhex(_DISTINCT[place % len(_DISTINCT)])
        palette[label] = (red, green, blue)
    return palette
