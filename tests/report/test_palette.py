"""The palette that colour-blind readers tell apart, against the usual one."""

import numpy as np
import pytest

from hsi_se.report.palette import COLOUR_BLINDNESS, make_distinct_palette, see_colours
from hsi_se.scene.palette import make_palette


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
