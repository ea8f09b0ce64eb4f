"""What a split gives away: how much of the training side a test patch already holds.

The training side is everything whose labels the method may look at: training and validation pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hsi_se.sampling.splits import Split


@dataclass(frozen=True)
class Leakage:
    """The audit of one split at one patch size.

    Attributes:
        patch_size: P.
        test_patches_with_train_pixels: the share of test pixels whose P × P patch holds a pixel of
            the training side.
        mean_train_pixels_per_test_patch: how many it holds on average.
        min_distance: the smallest Chebyshev distance between a test pixel and a pixel of the
            training side; below P, two patches overlap.
        reduction_saw_test: whether the reduction was fitted on test pixels.
    """

    patch_size: int
    test_patches_with_train_pixels: float
    mean_train_pixels_per_test_patch: float
    min_distance: int
    reduction_saw_test: bool


def audit_leakage(
    split: Split, *, shape: tuple[int, int], patch_size: int, reduction_saw_test: bool
) -> Leakage:
    """Returns the audit of a split of a scene of `shape` (rows, cols); patches end at its edge."""
    is_train = np.zeros(shape, dtype=bool)
    is_train[split.training_side[:, 0], split.training_side[:, 1]] = True
    rows, cols = split.test[:, 0], split.test[:, 1]
    counts = _count_in_windows(is_train, patch_size)[rows, cols]
    distance = ndimage.distance_transform_cdt(~is_train, metric="chessboard")[rows, cols]
    return Leakage(
        patch_size=patch_size,
        test_patches_with_train_pixels=float((counts > 0).mean()),
        mean_train_pixels_per_test_patch=float(counts.mean()),
        min_distance=int(distance.min()),
        reduction_saw_test=reduction_saw_test,
    )


def _count_in_windows(mask: NDArray[np.bool_], patch_size: int) -> NDArray[np.int64]:
    """`(rows, cols)`: how many true pixels the window around each pixel holds."""
    window = np.ones(patch_size, dtype=np.int64)
    counts = mask.astype(np.int64)
    for axis in (0, 1):
        counts = ndimage.convolve1d(counts, window, axis=axis, mode="constant")
    return counts
