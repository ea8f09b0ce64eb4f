"""Colours that stay distinct, also for colour-blind readers."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hsi_se.sampling.disjoint import Side
from hsi_se.scene.raster import Colour as Colour
from hsi_se.scene.raster import Floats

# Machado et al. 2009, A Physiologically-based Model for Simulation of Color Vision Deficiency,
# https://doi.org/10.1109/TVCG.2009.113, severity 1, on linear sRGB.
COLOUR_BLINDNESS = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900),
    ),
}  # fmt: skip
# Ottosson 2020, A perceptual color space for image processing, https://bottosson.github.io/posts/oklab.
_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)  # fmt: skip
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)  # fmt: skip
_LIGHTNESS = (0.38, 0.97)  # of the colours taken: apart from the dark of unlabelled ground, and from white
_LEVELS = 16  # of each channel among the candidates


SIDE_COLOURS = {
    Side.UNUSED: ("unlabelled", "#202020"),
    Side.TRAIN: ("training", "#f2b134"),
    Side.VALIDATION: ("validation", "#e4572e"),
    Side.TEST: ("test", "#3f88c5"),
    Side.BUFFER: ("buffer, unused", "#8f8f8f"),
}


def to_hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def make_distinct_palette(class_ids: Iterable[int]) -> dict[int, Colour]:
    """Returns an 8-bit RGB colour for each label, as far apart as can be for every kind of colour vision.

    Each label in turn gets the candidate whose smallest distance to the colours before it, and to the
    dark of unlabelled ground, is largest: the distance in OKLab, and the smallest of four, as seen with
    normal vision and with each kind of dichromacy.
    """
    steps = np.linspace(0, 255, _LEVELS).round()
    candidates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    seen = see_colours(candidates)  # (4, n, 3)
    low, high = _LIGHTNESS
    is_usable = (seen[0, :, 0] > low) & (seen[0, :, 0] < high)
    candidates, seen = candidates[is_usable], seen[:, is_usable]
    distance = np.linalg.norm(seen - see_colours(np.zeros((1, 3))), axis=-1).min(axis=0)  # (n,)
    palette = {}
    for label in sorted(int(label) for label in class_ids):
        place = int(distance.argmax())
        red, green, blue = candidates[place].astype(int).tolist()
        palette[label] = (red, green, blue)
        distance = np.minimum(distance, np.linalg.norm(seen - seen[:, [place]], axis=-1).min(axis=0))
    return palette


def see_colours(colours: NDArray[np.generic]) -> Floats:
    """Returns 8-bit colours `(n, 3)` in OKLab, `(4, n, 3)`: to normal vision and to each dichromacy."""
    share = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    sights = [linear, *(linear @ np.array(sight).T for sight in COLOUR_BLINDNESS.values())]
    cones = np.clip(np.stack(sights), 0, 1) @ np.array(_TO_CONES).T
    return np.asarray(np.cbrt(cones) @ np.array(_TO_LAB).T)
