"""What a split says before anything is trained: its counts, its leakage and its location floor."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.experiment import Config, PcaReduction
from hsi_se.evaluation.baselines import evaluate_location_floor
from hsi_se.evaluation.metrics import Evaluation, number_or_none
from hsi_se.sampling.leakage import Leakage, audit_leakage
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth


@dataclass(frozen=True, eq=False)
class SplitAudit:
    """One split at one patch size.

    Attributes:
        split: the pixels.
        leakage: what the test patches hold of the training side.
        location_floor: the accuracies of 1-nearest-neighbour on (row, col).
        counts: `(C, 4)` pixels of each class that train, validate, test, or are lost to the buffer.
        class_ids, class_names: of the C classes.
    """

    split: Split
    leakage: Leakage
    location_floor: Evaluation
    counts: NDArray[np.int64]

    @property
    def class_ids(self) -> tuple[int, ...]:
        return self.location_floor.class_ids

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.location_floor.class_names

    def values(self) -> dict[str, Any]:
        """Returns what JSON holds of it, under the keys of `report.json`."""
        totals = self.counts.sum(axis=0).tolist()
        sides = ("num_train", "num_val", "num_test", "num_buffer")
        return {
            **dict(zip(sides, totals, strict=True)),
            "split_digest": self.split.digest,
            "leakage": asdict(self.leakage),
            "location_floor": accuracies(self.location_floor),
            "split_per_class": [
                {"label": label, "name": name, **dict(zip(sides, row, strict=True))}
                for label, name, row in zip(
                    self.class_ids, self.class_names, self.counts.tolist(), strict=True
                )
            ],
            "notes": list(self.split.notes),
        }


def audit_split(
    truth: GroundTruth, split: Split, config: Config, *, location_floor: Evaluation | None = None
) -> SplitAudit:
    """Returns the audit of a split under a config's patch size and reduction.

    Args:
        truth: the labels that the split goes by (`Split.relabel`).
        split: the pixels.
        config: its `patch`, `prediction` and `reduction` sections are used; with smoothing, a test pixel's
            patch is counted with what the filter reaches.
        location_floor: of this split, if it is known already.
    """
    saw_test = isinstance(config.reduction, PcaReduction) and config.reduction.fit_on == "scene"
    counts = [
        np.bincount(
            np.searchsorted(truth.class_ids, truth.labels[side[:, 0], side[:, 1]]),
            minlength=truth.num_classes,
        )
        for side in (split.train, split.val, split.test, split.buffer)
    ]
    return SplitAudit(
        split=split,
        leakage=audit_leakage(
            split, shape=truth.shape, patch_size=config.window_size, reduction_saw_test=saw_test
        ),
        location_floor=location_floor or evaluate_location_floor(truth, split),
        counts=np.stack(counts, axis=1),
    )


def accuracies(evaluation: Evaluation) -> dict[str, float | None]:
    """Returns OA, AA and κ as fractions, under the keys that `report.json` uses for the network's."""
    return {
        "overall_accuracy": evaluation.overall_accuracy,
        "average_accuracy": evaluation.average_accuracy,
        "kappa": number_or_none(evaluation.kappa),
    }
