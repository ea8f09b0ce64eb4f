"""Audits spatial leakage of a split: how many training pixels the test patches contain.

Validation pixels count as training pixels here, because the method sees their labels too.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hsi_se.sampling.splits import Split


@dataclass(frozen=True)
class Leakage:
    """The leakage of one split at one patch size P, in pixels.

    Attributes:
        test_patches_with_train_pixels: fraction of test pixels whose P × P patch contains a training or
            validation pixel.
        mean_train_pixels_per_test_patch: mean number of such pixels in a test patch.
        min_distance: smallest Chebyshev distance in pixels between a test pixel and a training or
            validation pixel; below P, their patches overlap.
        reduction_saw_test: whether the reduction was fitted on test pixels.
    """

    patch_size: int
    test_patches_with_train_pixels: float
    mean_train_pixels_per_test_patch: float
    min_distance: int
    reduction_saw_test: bool


def audit_leakage(split: Split, *, shape: tuple[int, int], patch_size: int, reduction_saw_test: bool) -> Leakage:
    """Returns the leakage of a split of a scene of `shape` (rows, cols); padding is not counted."""
    is_train = np.zeros(shape, dtype=bool)
    is_train[split.training_side[:, 0], split.training_side[:, 1]] = True
    rows, cols = split.test[:, 0], split.test[:, 1]
    counts = is_train.astype(np.int64)
    for axis in (0, 1):  # the number of training pixels in the window around each pixel
        counts = ndimage.convolve1d(counts, np.ones(patch_size, np.int64), axis=axis, mode="constant")
    counts = counts[rows, cols]
    distance = ndimage.distance_transform_cdt(~is_train, metric="chessboard")[rows, cols]
    return Leakage(
        patch_size=patch_size,
        test_patches_with_train_pixels=float((counts > 0).mean()),
        mean_train_pixels_per_test_patch=float(counts.mean()),
        min_distance=int(distance.min()),
        reduction_saw_test=reduction_saw_test,
    )
