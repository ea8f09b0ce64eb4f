"""The palette that colour-blind readers tell apart, against the usual one."""

import numpy as np
import pytest

from hsi_se.report.figures import make_distinct_palette
from hsi_se.scene.scene import make_palette

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


def compute_distinct_colours(num_classes: int) -> list[tuple[int, int, int]]:
    """As far apart as can be for every kind of colour vision.

    Each colour in turn is the candidate whose smallest distance to those before it, and to the dark of
    unlabelled ground, is largest: the distance in OKLab, and the smallest of four, as seen with normal vision
    and with each kind of dichromacy.
    """
    steps = np.linspace(0, 255, _LEVELS).round()
    candidates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    seen = see_colours(candidates)  # (4, n, 3)
    low, high = _LIGHTNESS
    is_usable = (seen[0, :, 0] > low) & (seen[0, :, 0] < high)
    candidates, seen = candidates[is_usable], seen[:, is_usable]
    distance = np.linalg.norm(seen - see_colours(np.zeros((1, 3))), axis=-1).min(axis=0)  # (n,)
    colours = []
    for _ in range(num_classes):
        place = int(distance.argmax())
        red, green, blue = candidates[place].astype(int).tolist()
        colours.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(seen - seen[:, [place]], axis=-1).min(axis=0))
    return colours


def see_colours(colours: np.ndarray) -> np.ndarray:
    """Returns 8-bit colours `(n, 3)` in OKLab, `(4, n, 3)`: to normal vision and to each dichromacy."""
    share = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    sights = [linear, *(linear @ np.array(sight).T for sight in COLOUR_BLINDNESS.values())]
    cones = np.clip(np.stack(sights), 0, 1) @ np.array(_TO_CONES).T
    return np.asarray(np.cbrt(cones) @ np.array(_TO_LAB).T)


def closest_pair(palette: dict[int, tuple[int, int, int]], ids: range) -> np.ndarray:
    """The smallest distance between two classes, to each kind of vision."""
    seen = see_colours(np.array([palette[label] for label in ids]))
    distance = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
    return (distance + 9 * np.eye(len(ids))).min(axis=(1, 2))


@pytest.mark.parametrize("num_classes", [2, 6, 9, 16, 22])
def test_the_closest_classes_stay_apart_for_every_kind_of_vision(num_classes):
    ids = range(1, num_classes + 1)
    distinct = closest_pair(make_distinct_palette(ids), ids)
    usual = closest_pair(make_palette(ids), ids)
    assert (distinct > 0.06).all()
    assert num_classes < 6 or distinct.min() > 2 * usual.min()


def test_the_same_labels_get_the_same_colours_whatever_their_order():
    assert make_distinct_palette([14, 1, 10]) == make_distinct_palette([1, 10, 14])


def test_greys_look_grey_to_everybody():
    for sight in COLOUR_BLINDNESS.values():
        np.testing.assert_allclose(np.array(sight).sum(axis=1), 1, atol=2e-6)
    greys = see_colours(np.array([[0, 0, 0], [90, 90, 90], [255, 255, 255]]))
    np.testing.assert_allclose(greys[..., 1:], 0, atol=2e-3)
    np.testing.assert_allclose(greys[:, 2, 0], 1, atol=1e-3)


def test_red_and_green_of_one_lightness_are_alike_without_the_cones_that_part_them():
    normal, protan, deutan, tritan = see_colours(np.array([[200, 80, 60], [120, 120, 50]]))
    apart = [np.linalg.norm(sight[0] - sight[1]) for sight in (normal, protan, deutan, tritan)]
    assert max(apart[1:3]) < 0.6 * apart[0]
    assert apart[3] > 0.6 * apart[0]


def test_the_table_is_what_greedy_choice_gives():
    assert list(make_distinct_palette(range(64)).values()) == compute_distinct_colours(64)
