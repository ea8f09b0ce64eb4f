"""Computes accuracies from a confusion matrix; rows are the reference, columns the prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth

Fractions = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Classification accuracies as fractions; NaN where a class has no pixels to compute one from.

    `confusion[i, j]`, of shape `(C, C)`, counts the test pixels of class i that are predicted as j.
    """

    confusion: NDArray[np.int64]
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]

    @property
    def num_test(self) -> int:
        return int(self.confusion.sum())

    @property
    def overall_accuracy(self) -> float:
        """Returns OA: fraction of test pixels classified correctly."""
        return float(np.trace(self.confusion) / self.num_test)

    @property
    def average_accuracy(self) -> float:
        """Returns AA: the mean producer's accuracy over the classes present in the test pixels."""
        return float(np.nanmean(self.producers_accuracy))

    @property
    def kappa(self) -> float:
        """Returns Cohen's κ = (p₀ - pₑ) / (1 - pₑ); NaN if the chance agreement pₑ is 1.

        Cohen 1960, A coefficient of agreement for nominal scales, eq. 1.
        """
        chance = float(self.support @ self.predicted) / self.num_test**2
        return (self.overall_accuracy - chance) / (1 - chance) if chance < 1 else float("nan")

    @cached_property
    def support(self) -> NDArray[np.int64]:
        """Returns the number of test pixels of each class, `(C,)`."""
        return np.asarray(self.confusion.sum(axis=1))

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Returns the number of test pixels predicted as each class, `(C,)`."""
        return np.asarray(self.confusion.sum(axis=0))

    @property
    def shares(self) -> Fractions:
        """Returns the confusion matrix divided by its row sums, `(C, C)`; 0 for an empty row."""
        return np.asarray(self.confusion / np.maximum(self.support, 1)[:, None])

    @cached_property
    def producers_accuracy(self) -> Fractions:
        """Returns the recall, `(C,)`: fraction of a class's pixels that are predicted as it."""
        return _ratio(np.diag(self.confusion), self.support)

    @cached_property
    def users_accuracy(self) -> Fractions:
        """Returns the precision, `(C,)`: fraction of the pixels predicted as a class that belong to it."""
        return _ratio(np.diag(self.confusion), self.predicted)

    @cached_property
    def f1(self) -> Fractions:
        """Returns the harmonic mean of producer's and user's accuracy, `(C,)`."""
        return _ratio(2 * np.diag(self.confusion), self.support + self.predicted)


def evaluate_labels(
    truth: NDArray[np.integer], predicted: NDArray[np.integer], *, class_ids: Sequence[int], class_names: Sequence[str]
) -> Evaluation:
    """Returns the accuracies of labels `(n,)` predicted for n ≥ 1 pixels; the matrix has C classes in this order."""
    counts = confusion_matrix(truth, predicted, labels=list(class_ids)).astype(np.int64)
    return Evaluation(counts, tuple(int(label) for label in class_ids), tuple(class_names))


def evaluate_test(truth: GroundTruth, split: Split, predicted: NDArray[np.integer]) -> Evaluation:
    """Returns the accuracies of the labels `(n,)` predicted at the test pixels of a split."""
    ids = truth.class_ids.tolist()
    names = [truth.class_names[label] for label in ids]
    true = truth.labels[split.test[:, 0], split.test[:, 1]]
    return evaluate_labels(true, predicted, class_ids=ids, class_names=names)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Fractions:
    return np.asarray(np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0))
