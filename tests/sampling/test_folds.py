"""Folds of the training set: each stands to its fit as the test set stands to the training set."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from hsi_se.config.split import BlocksSplit, FieldsSplit, MasksSplit, RandomSplit
from hsi_se.sampling.folds import divide_into_folds, is_like_test
from hsi_se.sampling.splits import Split, make_split
from hsi_se.scene.scene import Scene
from hsi_se.scene.synthetic import make_synthetic_scene

RANDOM = RandomSplit(kind="random", train=0.2)
BLOCKS = BlocksSplit(kind="blocks", train=0.4, block_size=6, buffer=5)
FIELDS = FieldsSplit(kind="fields", train=0.5, buffer=5)
MASKS = MasksSplit(kind="masks", train="a", test="b")
NOTHING = np.empty((0, 2), dtype=np.int64)


@pytest.fixture(scope="module")
def farm() -> Scene:
    return make_synthetic_scene(seed=1, rows=90, cols=80, bands=8)


def measure_closest(pixels: np.ndarray, others: np.ndarray) -> np.ndarray:
    return cdist(pixels, others, "chebyshev").min(axis=1)


@pytest.mark.parametrize("settings", [RANDOM, BLOCKS, FIELDS], ids=lambda settings: settings.kind)
@pytest.mark.parametrize("seed", range(4))
def test_held_pixels_are_as_far_from_their_fit_as_test_pixels_and_of_classes_in_it(farm, settings, seed):
    split = make_split(farm, settings, seed=seed)
    folds = divide_into_folds(farm, split, settings, seed=seed)
    np.testing.assert_array_equal(folds.pixels, split.training_side)
    labels = farm.labels[folds.pixels[:, 0], folds.pixels[:, 1]]
    np.testing.assert_array_equal(farm.class_ids[folds.classes], labels)
    closest = measure_closest(split.test, split.training_side).min()
    assert 2 <= len(folds.parts) <= 3
    times_held = np.zeros(len(folds.pixels), dtype=int)
    for fit, held in folds.parts:
        assert not (fit & held).any()
        assert fit.sum() >= len(fit) / 3
        assert measure_closest(folds.pixels[held], folds.pixels[fit]).min() >= closest
        for label in np.unique(folds.classes[held]):
            assert (folds.classes[fit] == label).sum() >= (folds.classes == label).sum() / 3
        times_held += held
    assert times_held.max() == 1
    again = divide_into_folds(farm, split, settings, seed=seed)
    np.testing.assert_array_equal(again.parts, folds.parts)


def test_a_random_split_has_folds_with_equal_shares_of_every_class(farm):
    split = make_split(farm, RANDOM, seed=0)
    folds = divide_into_folds(farm, split, RANDOM, seed=0)
    counts = np.array([np.bincount(folds.classes[held], minlength=9) for _, held in folds.parts])
    assert np.ptp(counts, axis=0).max() <= 1
    assert counts.sum() == len(split.training_side) == len(np.unique(folds.groups))


@pytest.mark.parametrize("settings", [BLOCKS, FIELDS], ids=lambda settings: settings.kind)
def test_a_field_is_one_group_and_is_never_cut_by_a_fold(farm, settings):
    split = make_split(farm, settings, seed=0)
    folds = divide_into_folds(farm, split, settings, seed=0)
    rows, cols = folds.pixels.T
    fields = np.zeros(len(rows), dtype=int)
    for label in farm.class_ids:
        of_class = np.zeros(farm.shape, dtype=bool)
        of_class[rows, cols] = farm.labels[rows, cols] == label
        found, _ = ndimage.label(of_class, structure=np.ones((3, 3)))
        fields = np.where(found[rows, cols] > 0, 1000 * label + found[rows, cols], fields)
    pairs = {(group, field) for group, field in zip(folds.groups.tolist(), fields.tolist(), strict=True)}
    assert len(pairs) == len(np.unique(folds.groups)) == len(np.unique(fields))
    for fit, held in folds.parts:
        assert not set(fields[fit]) & set(fields[held])


def test_validation_pixels_stand_for_test_pixels_where_both_are_drawn_alike(farm):
    for settings in (RANDOM, BLOCKS, FIELDS):
        split = make_split(farm, settings, seed=0)
        assert len(split.val)
        expected = settings is RANDOM
        assert is_like_test(split.val, split, settings, apart=split.train) == expected
        # As masks, nothing but the pixels themselves tells.
        assert is_like_test(split.val, split, MASKS, apart=split.train) == (settings is RANDOM)


def test_masks_of_scattered_pixels_have_folds_of_pixels_and_masks_of_areas_folds_of_areas(farm):
    scattered = divide_into_folds(farm, make_split(farm, RANDOM, seed=0), MASKS, seed=0)
    assert len(np.unique(scattered.groups)) == len(scattered.pixels)
    areas = divide_into_folds(farm, make_split(farm, BLOCKS, seed=0), MASKS, seed=0)
    assert len(np.unique(areas.groups)) < len(areas.pixels) / 4


def test_training_pixels_in_one_corner_cannot_be_divided(farm):
    """Whatever is held out, nothing as far away as the test pixels is left to train on."""
    pixels = np.argwhere(farm.labels > 0)
    corner = (pixels < 12).all(axis=1)
    split = Split(train=pixels[corner], val=NOTHING, test=pixels[(pixels > 60).all(axis=1)])
    assert divide_into_folds(farm, split, BLOCKS, seed=0).parts == ()


@pytest.mark.parametrize("settings", [RANDOM, BLOCKS, FIELDS, MASKS], ids=lambda settings: settings.kind)
def test_very_few_training_pixels_are_divided_without_an_error(farm, settings):
    pixels = np.argwhere(farm.labels > 0)
    for count in (1, 2, 5):
        split = Split(train=pixels[:: len(pixels) // count][:count], val=NOTHING, test=pixels[1:2])
        folds = divide_into_folds(farm, split, settings, seed=0)
        assert len(folds.pixels) == count
