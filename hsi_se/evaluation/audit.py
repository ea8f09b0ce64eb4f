"""Audits a split before training: pixel counts, leakage and location floor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hsi_se.config.experiment import Config
from hsi_se.evaluation.baselines import predict_by_location
from hsi_se.evaluation.metrics import Evaluation, evaluate_test
from hsi_se.sampling.leakage import Leakage, audit_leakage
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth


@dataclass(frozen=True, eq=False)
class SplitAudit:
    """The audit of one split at one patch size.

    `counts`, of shape `(C, 4)`, are the training, validation, test and buffer pixels of each class.
    """

    split: Split
    leakage: Leakage
    location_floor: Evaluation
    counts: NDArray[np.int64]


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
        split=split,
        leakage=audit_leakage(split, shape=truth.shape, patch_size=config.window_size, reduction_saw_test=saw_test),
        location_floor=location_floor or evaluate_test(truth, split, predict_by_location(truth, split)),
        counts=np.stack(counts, axis=1),
    )
