"""The colours of classes: apart for every kind of colour vision, and those of the labels before any other."""

import itertools

import numpy as np
import pytest
from spectral import spy_colors

from hsi_se.scene.scene import make_palette, parse_colour
from hsi_se.system.files import read_facts

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
# IEC 61966-2-1: linear sRGB to XYZ.
_TO_XYZ = np.array(
    [(0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041)]
)
OKABE_ITO = ("56b4e9", "d55e00", "f0e442", "0072b2", "cc79a7", "009e73", "e69f00")
_LIGHTNESS, _LEAST_CHROMA = (25, 95), 30  # of further colours: neither near black or white, nor grey
_LEVELS = 16  # of each channel among the candidates
FLOOR = 10  # CIEDE2000; colours of adjacent areas are told apart at a glance from about 5 on


def see_colours(colours: np.ndarray) -> np.ndarray:
    """Returns 8-bit colours `(n, 3)` in CIELAB, `(4, n, 3)`: to normal vision and to each dichromacy."""
    share = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    sights = [linear, *(linear @ np.array(sight).T for sight in COLOUR_BLINDNESS.values())]
    xyz = np.clip(np.stack(sights), 0, 1) @ _TO_XYZ.T / _TO_XYZ.sum(axis=1)
    x, y, z = np.moveaxis(np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def measure_difference(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Returns CIEDE2000 of colours in CIELAB (Sharma et al. 2005, https://doi.org/10.1002/col.20070)."""
    (light1, a1, b1), (light2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(two, -1, 0)
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    chroma1, chroma2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    hue1, hue2 = np.arctan2(b1, stretch * a1) % (2 * np.pi), np.arctan2(b2, stretch * a2) % (2 * np.pi)
    is_grey = chroma1 * chroma2 == 0
    turn = np.where(is_grey, 0, (hue2 - hue1 + np.pi) % (2 * np.pi) - np.pi)
    hue = np.where(is_grey, hue1 + hue2, hue1 + turn / 2)
    light, chroma = (light1 + light2) / 2, (chroma1 + chroma2) / 2
    tone = (
        1 - 0.17 * np.cos(hue - np.pi / 6) + 0.24 * np.cos(2 * hue)
        + 0.32 * np.cos(3 * hue + np.radians(6)) - 0.2 * np.cos(4 * hue - np.radians(63))
    )  # fmt: skip
    blue = np.radians(30) * np.exp(-(((np.degrees(hue) % 360 - 275) / 25) ** 2))
    cross = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(2 * blue)
    in_light = (light2 - light1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    in_chroma = (chroma2 - chroma1) / (1 + 0.045 * chroma)
    in_hue = 2 * np.sqrt(chroma1 * chroma2) * np.sin(turn / 2) / (1 + 0.015 * chroma * tone)
    return np.sqrt(in_light**2 + in_chroma**2 + in_hue**2 + cross * in_chroma * in_hue)


def compute_colours(num_classes: int) -> list[tuple[int, int, int]]:
    """Okabe and Ito's, and then in turn the candidate that is farthest from all before it to any kind of vision."""
    steps = np.linspace(0, 255, _LEVELS).round()
    candidates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    seen = see_colours(candidates)  # (4, n, 3)
    light, chroma = seen[0, :, 0], np.hypot(seen[0, :, 1], seen[0, :, 2])
    is_usable = (light > _LIGHTNESS[0]) & (light < _LIGHTNESS[1]) & (chroma > _LEAST_CHROMA)
    candidates, seen = candidates[is_usable], seen[:, is_usable]
    colours = [parse_colour(text) for text in OKABE_ITO]
    taken = see_colours(
        np.array([(0, 0, 0), parse_colour(read_facts("hsi_se.scene", "palette.toml")["unclassified"][0]), *colours])
    )
    distance = np.min([measure_difference(seen, taken[:, [place]]) for place in range(taken.shape[1])], axis=(0, 1))
    while len(colours) < num_classes:
        place = int(distance.argmax())
        red, green, blue = candidates[place].astype(int).tolist()
        colours.append((red, green, blue))
        distance = np.minimum(distance, measure_difference(seen, seen[:, [place]]).min(axis=0))
    return colours


def closest_pair(colours: np.ndarray) -> np.ndarray:
    """The smallest distance between two colours, to each kind of vision."""
    seen = see_colours(colours)
    one, two = zip(*itertools.combinations(range(len(colours)), 2), strict=True)
    return measure_difference(seen[:, one], seen[:, two]).min(axis=1)


@pytest.mark.parametrize("num_classes", range(2, 17))
def test_classes_stay_apart_for_every_kind_of_vision_and_more_than_in_spectrals_palette(num_classes):
    """From unlabelled ground and from unclassified pixels too."""
    palette = make_palette(range(1, num_classes + 1))
    grey = parse_colour(read_facts("hsi_se.scene", "palette.toml")["unclassified"][0])
    assert (closest_pair(np.array([*palette.values(), grey])) > FLOOR).all()
    usual = closest_pair(np.array(spy_colors[1 : num_classes + 1]))
    assert closest_pair(np.array(list(palette.values())[1:])).min() > usual.min()


def test_more_classes_than_a_legend_can_show_still_have_colours_of_their_own():
    assert len(set(make_palette(range(1, 129)).values())) == 129
    assert (closest_pair(np.array(list(make_palette(range(1, 25)).values()))) > 8).all()
    assert make_palette(range(1, 131))[129] == make_palette([1])[1], "they repeat"


def test_the_same_labels_get_the_same_colours_whatever_their_order():
    assert make_palette([14, 1, 10]) == make_palette([1, 10, 14])


def test_colours_of_the_labels_come_first_and_no_other_class_has_one_like_them():
    given = {2: (230, 90, 4), 9: (0, 0, 200), 77: (1, 2, 3)}
    palette = make_palette([1, 2, 5, 9], given=given)
    assert palette == {0: (0, 0, 0), 1: (86, 180, 233), 2: given[2], 5: (240, 228, 66), 9: given[9]}
    assert make_palette([1], given={0: (9, 9, 9)})[0] == (9, 9, 9)


def test_labels_that_have_every_colour_leave_the_same_to_the_others():
    colours = [parse_colour(text) for text in read_facts("hsi_se.scene", "palette.toml")["colours"]]
    assert make_palette(range(1, 130), given=dict(enumerate(colours, start=1)))[129] == colours[0]


def test_the_table_is_what_greedy_choice_gives():
    assert list(make_palette(range(1, 129)).values())[1:] == compute_colours(128)


def test_the_difference_is_that_of_published_pairs():
    """Sharma et al. 2005, table 1, pairs 1, 4, 7, 17, 20 and 25."""
    pairs = np.array([
        [(50, 2.6772, -79.7751), (50, 0, -82.7485)], [(50, -1.3802, -84.2814), (50, 0, -82.7485)],
        [(50, 0, 0), (50, -1, 2)], [(50, 2.5, 0), (73, 25, -18)], [(50, 2.5, 0), (58, 24, 15)],
        [(60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387)],
    ])  # fmt: skip
    expected = [2.0425, 1.0, 2.3669, 27.1492, 19.4535, 1.2644]
    np.testing.assert_allclose(measure_difference(pairs[:, 0], pairs[:, 1]), expected, atol=1e-4)


def test_greys_look_grey_to_everybody():
    for sight in COLOUR_BLINDNESS.values():
        np.testing.assert_allclose(np.array(sight).sum(axis=1), 1, atol=2e-6)
    greys = see_colours(np.array([[0, 0, 0], [90, 90, 90], [255, 255, 255]]))
    np.testing.assert_allclose(greys[..., 1:], 0, atol=1e-2)
    np.testing.assert_allclose(greys[:, 2, 0], 100, atol=1e-3)


def test_red_and_green_of_one_lightness_are_alike_without_the_cones_that_part_them():
    normal, protan, deutan, tritan = see_colours(np.array([[200, 80, 60], [120, 120, 50]]))
    apart = [float(measure_difference(sight[0], sight[1])) for sight in (normal, protan, deutan, tritan)]
    assert max(apart[1:3]) < 0.6 * apart[0]
    assert apart[3] > 0.6 * apart[0]
