"""Divides the training set into folds that relate to each other as the test set does to the training set.

They calibrate the probabilities of one run. The folds of a spatial cross-validation are in `spatial_folds`.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from hsi_se.config.split import MasksSplit, RandomSplit, SplitSettings
from hsi_se.sampling.disjoint import number_fields
from hsi_se.sampling.spatial_folds import deal
from hsi_se.sampling.splits import Pixels, Split
from hsi_se.scene.scene import GroundTruth

_NUM_FOLDS = 3
_MIN_FIT = 1 / 3  # of all pixels and of a held pixel's class; trained on less, a classifier is another one


@dataclass(frozen=True, eq=False)
class Folds:
    """The training set, validation pixels included, and its folds."""

    pixels: Pixels
    classes: NDArray[np.int64]  # (n,) 0..C-1
    groups: NDArray[np.int64]  # (n,) field of each pixel; a number of its own if the split draws pixels
    # For each usable fold, (n,): in the fit; held out, and of a class of which a third is in the fit.
    parts: tuple[tuple[NDArray[np.bool_], NDArray[np.bool_]], ...]


def is_like_test(pixels: Pixels, split: Split, settings: SplitSettings, *, apart: Pixels) -> bool:
    """Returns whether some pixels of the training set are as far from `apart` as test pixels are.

    A random split draws both alike. A split by blocks or fields does not: its validation pixels lie among the
    training pixels. With masks, the mean distance to the nearest other pixel decides: it must be at least
    half of that from the test pixels to the training set.
    """
    if not isinstance(settings, MasksSplit) or not len(pixels) or len(apart) < 2:
        return isinstance(settings, RandomSplit)
    nearest = measure_distances(pixels, apart, nearest=2)
    to_another = np.where(nearest[:, 0] > 0, nearest[:, 0], nearest[:, 1])
    return bool(2 * to_another.mean() >= measure_distances(split.test, split.training_side).mean())


def divide_into_folds(truth: GroundTruth, split: Split, settings: SplitSettings, *, seed: int) -> Folds:
    """Returns up to three folds of the training set; `truth` has the labels used by the split (`Split.relabel`).

    If the split draws single pixels, so do the folds, class by class. Otherwise whole areas are held out,
    and pixels closer to them than test pixels are to training pixels are left out of the fit. Areas are the
    fields of a class, or, where test pixels keep a distance, groups of pixels with that distance between
    them; if this gives fewer than three areas, groups with half the distance, and so on.
    """
    pixels = split.training_side
    classes = np.searchsorted(truth.class_ids, truth.labels[pixels[:, 0], pixels[:, 1]])
    groups, fold, buffer = np.arange(len(pixels)), np.zeros(len(pixels), dtype=np.int64), 0
    if is_like_test(pixels, split, settings, apart=pixels):
        order = np.random.default_rng(seed).permutation(len(pixels))
        fold[order[np.argsort(classes[order], kind="stable")]] = np.arange(len(pixels)) % _NUM_FOLDS
    else:
        known = np.zeros_like(truth.labels)
        known[pixels[:, 0], pixels[:, 1]] = truth.labels[pixels[:, 0], pixels[:, 1]]
        groups = number_fields(replace(truth, labels=known))[pixels[:, 0], pixels[:, 1]].astype(np.int64)
        gap = buffer = int(measure_distances(split.test, pixels).min()) if len(split.test) else 0
        areas = groups
        while gap > 1:
            areas = _label_areas(pixels, truth.shape, reach=gap // 2)
            gap = 0 if len(np.unique(areas)) >= _NUM_FOLDS else gap // 2
        num_folds = min(_NUM_FOLDS, len(np.unique(areas)))
        fold = deal(areas, classes, num_folds=num_folds, rng=np.random.default_rng(seed))
    parts = []
    for number in np.unique(fold):
        held = fold == number
        fit = ~held & (measure_distances(pixels, pixels[held])[:, 0] >= buffer)
        in_fit, in_all = (np.bincount(some, minlength=truth.num_classes) for some in (classes[fit], classes))
        share = in_fit / np.maximum(in_all, 1)  # of each class
        usable = held & (share[classes] >= _MIN_FIT)
        if fit.mean() >= _MIN_FIT and np.count_nonzero(share) > 1 and usable.any():
            parts.append((fit, usable))
    return Folds(pixels, classes, groups, tuple(parts))


def measure_distances(pixels: Pixels, others: Pixels, *, nearest: int = 1) -> NDArray[np.float64]:
    """Returns `(n, nearest)` Chebyshev distances to the nearest of other pixels, in ascending order."""
    return np.asarray(KDTree(others).query(pixels, k=range(1, nearest + 1), p=np.inf)[0])


def _label_areas(pixels: Pixels, shape: tuple[int, int], *, reach: int) -> NDArray[np.int64]:
    """Returns `(n,)` the number, from 1, of each pixel's area; areas are more than 2 · reach + 1 apart."""
    covered = np.zeros(shape, dtype=bool)
    covered[pixels[:, 0], pixels[:, 1]] = True
    covered = ndimage.maximum_filter(covered, size=2 * reach + 1, mode="constant")
    areas, _ = ndimage.label(covered, structure=np.ones((3, 3)))
    return np.asarray(areas[pixels[:, 0], pixels[:, 1]], dtype=np.int64)
