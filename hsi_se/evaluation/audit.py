"""Audits a split before training: pixel counts, leakage and location floor."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from hsi_se.config.experiment import Config
from hsi_se.evaluation.baselines import predict_by_location
from hsi_se.evaluation.metrics import Evaluation, evaluate_test
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth


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


@dataclass(frozen=True, eq=False)
class SplitAudit:
    """The audit of one split at one patch size, or of the folds that test every pixel once.

    `counts`, of shape `(C, 4)`, are the training, validation, test and buffer pixels of each class. Of several folds,
    the test pixels are those of all folds, and the others are means per fold, rounded.
    """

    digest: str  # of the split
    notes: tuple[str, ...]
    leakage: Leakage
    location_floor: Evaluation
    counts: NDArray[np.int64]
    folds: tuple["SplitAudit", ...] = ()

    @property
    def unlearnable(self) -> dict[str, int]:
        """The test pixels of each class that has no training pixels in their split, by name."""
        names, lost = self.location_floor.class_names, [fold.counts for fold in self.folds or (self,)]
        pixels = sum(np.where(counts[:, :2].sum(axis=1) == 0, counts[:, 2], 0) for counts in lost)
        return {name: count for name, count in zip(names, np.asarray(pixels).tolist(), strict=True) if count}


def audit_split(
    truth: GroundTruth, split: Split, config: Config, *, location_floor: Evaluation | None = None
) -> SplitAudit:
    """Returns the audit of a split for a config's patch size and reduction.

    Args:
        truth: the labels used by the split (`Split.relabel`).
        config: with smoothing, the window counted for a test pixel includes the reach of the filter.
        location_floor: that of this split, if it has been fitted already.
    """
    nearest = np.min(cKDTree(split.train).query(split.test)[0])
    saw_test = config.reduction.fit_on == "scene" or bool(nearest <= config.reduction.reach)
    counts = [
        np.bincount(
            np.searchsorted(truth.class_ids, truth.labels[pixels[:, 0], pixels[:, 1]]), minlength=truth.num_classes
        )
        for pixels in (split.train, split.val, split.test, split.buffer)
    ]
    return SplitAudit(
        digest=split.digest,
        notes=split.notes,
        leakage=audit_leakage(split, shape=truth.shape, patch_size=config.window_size, reduction_saw_test=saw_test),
        location_floor=location_floor or evaluate_test(truth, split, predict_by_location(truth, split)),
        counts=np.stack(counts, axis=1),
    )


def pool_audits(folds: Sequence[SplitAudit]) -> SplitAudit:
    """Returns the audit of the folds of one draw together; every test pixel has the same weight."""
    floors, leaks = [fold.location_floor for fold in folds], [fold.leakage for fold in folds]
    shares = [(leak.test_patches_with_train_pixels, leak.mean_train_pixels_per_test_patch) for leak in leaks]
    leaking, per_patch = np.average(shares, axis=0, weights=[floor.num_test for floor in floors]).tolist()
    counts = np.stack([fold.counts for fold in folds])  # (K, C, 4)
    pooled = np.rint(counts.mean(axis=0)).astype(np.int64)
    pooled[:, 2] = counts[:, :, 2].sum(axis=0)
    found = SplitAudit(
        digest=hashlib.sha256("".join(fold.digest for fold in folds).encode()).hexdigest(),
        notes=(),
        leakage=replace(
            leaks[0],
            test_patches_with_train_pixels=leaking,
            mean_train_pixels_per_test_patch=per_patch,
            min_distance=min(leak.min_distance for leak in leaks),
        ),
        location_floor=replace(floors[0], confusion=np.sum([floor.confusion for floor in floors], axis=0)),
        counts=pooled,
        folds=tuple(folds),
    )
    notes = dict.fromkeys(note for fold in folds for note in fold.notes)
    if lost := found.unlearnable:
        which = ", ".join(f"{name} ({count})" for name, count in lost.items())
        notes[f"in all, {sum(lost.values()):,} test pixels are of classes that their fold cannot learn: {which}"] = None
    return replace(found, notes=tuple(notes))


def audit_leakage(split: Split, *, shape: tuple[int, int], patch_size: int, reduction_saw_test: bool) -> Leakage:
    """Returns the leakage of a split of a scene of `shape` (rows, cols); padding is not counted.

    Validation pixels count as training pixels here, because the method sees their labels too.
    """
    is_train = np.zeros(shape, dtype=bool)
    is_train[split.training_side[:, 0], split.training_side[:, 1]] = True
    rows, cols = split.test[:, 0], split.test[:, 1]
    counts = is_train.astype(np.int32)
    for axis in (0, 1):  # the number of training pixels in the window around each pixel
        counts = ndimage.convolve1d(counts, np.ones(patch_size, np.int32), axis=axis, mode="constant")
    counts = counts[rows, cols]
    distance = ndimage.distance_transform_cdt(~is_train, metric="chessboard")[rows, cols]
    return Leakage(
        patch_size=patch_size,
        test_patches_with_train_pixels=float((counts > 0).mean()),
        mean_train_pixels_per_test_patch=float(counts.mean()),
        min_distance=int(distance.min()),
        reduction_saw_test=reduction_saw_test,
    )
