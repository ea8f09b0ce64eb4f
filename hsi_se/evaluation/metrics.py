"""Accuracies from a confusion matrix alone; rows are the truth, columns the prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

Fractions = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Accuracies, all as fractions; NaN where a class has no pixel to compute one from.

    Attributes:
        confusion: `(C, C)` counts of test pixels; `confusion[i, j]` are of class i and called j.
        class_ids: `(C,)` labels in the ground truth.
        class_names: C names.
    """

    confusion: NDArray[np.int64]
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]

    @property
    def num_test(self) -> int:
        return int(self.confusion.sum())

    @property
    def overall_accuracy(self) -> float:
        """OA: the share of test pixels called by their class."""
        return float(np.trace(self.confusion) / self.num_test)

    @property
    def average_accuracy(self) -> float:
        """AA: the mean producer's accuracy of the classes that the test pixels hold."""
        return float(np.nanmean(self.producers_accuracy))

    @property
    def kappa(self) -> float:
        """Cohen's κ = (p₀ - pₑ) / (1 - pₑ); NaN where chance alone would agree everywhere.

        Cohen 1960, A coefficient of agreement for nominal scales, eq. 1.
        """
        chance = float(self.support @ self.predicted) / self.num_test**2
        return (self.overall_accuracy - chance) / (1 - chance) if chance < 1 else float("nan")

    @cached_property
    def support(self) -> NDArray[np.int64]:
        """`(C,)` test pixels of each class."""
        return np.asarray(self.confusion.sum(axis=1))

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """`(C,)` test pixels called each class."""
        return np.asarray(self.confusion.sum(axis=0))

    @property
    def shares(self) -> Fractions:
        """`(C, C)` confusion as shares of the true class; 0 where it has no test pixel."""
        return np.asarray(self.confusion / np.maximum(self.support, 1)[:, None])

    @cached_property
    def producers_accuracy(self) -> Fractions:
        """`(C,)` recall: of the pixels of a class, the share called so."""
        return _ratio(np.diag(self.confusion), self.support)

    @cached_property
    def users_accuracy(self) -> Fractions:
        """`(C,)` precision: of the pixels called a class, the share that are."""
        return _ratio(np.diag(self.confusion), self.predicted)

    @cached_property
    def f1(self) -> Fractions:
        """`(C,)` harmonic mean of producer's and user's accuracy."""
        return _ratio(2 * np.diag(self.confusion), self.support + self.predicted)


def evaluate_labels(
    truth: NDArray[np.integer],
    predicted: NDArray[np.integer],
    *,
    class_ids: Sequence[int],
    class_names: Sequence[str],
) -> Evaluation:
    """Returns the evaluation of predicted labels `(n,)` against true ones, n ≥ 1."""
    counts = confusion_matrix(truth, predicted, labels=list(class_ids)).astype(np.int64)
    return Evaluation(counts, tuple(int(label) for label in class_ids), tuple(class_names))


def number_or_none(value: float) -> float | None:
    """JSON has no NaN: what cannot be computed becomes null."""
    return None if np.isnan(value) else float(value)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Fractions:
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
