"""Measures how reliable a network's confidence is: temperature scaling, calibration and rejection.

Axes: n pixels, c classes. A pixel's confidence is the probability of its predicted class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from hsi_se.evaluation.metrics import Fractions

_MIN_TEMPERATURE = 0.05
_MAX_TEMPERATURE = 20.0


def fit_temperature(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Returns the temperature T in [0.05, 20] that maximises the likelihood of softmax(logits / T).

    Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, sec. 4.2.
    Fit it on validation pixels.

    T is 1 if the pixels cannot determine it: there are fewer than two, all logits of each pixel are
    equal, or every pixel is classified correctly (the likelihood then grows as T falls, and the smallest T
    would turn all confidences into 1 and lose their order).

    Args:
        logits: `(n, c)` network output.
        truth: `(n,)` true classes 0..c-1.
    """
    pixels = np.arange(len(truth))
    scores = np.asarray(logits, dtype=np.float64)
    if len(truth) < 2 or (scores[pixels, truth] == scores.max(axis=1)).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -float(log_probabilities[pixels, truth].mean())

    # The loss is convex in 1 / T, so it has a single minimum along log T.
    found = minimize_scalar(
        loss, bounds=(np.log(_MIN_TEMPERATURE), np.log(_MAX_TEMPERATURE)), method="bounded"
    )
    return float(np.exp(found.x))


def is_scaled(temperature: float) -> bool:
    """Returns whether the validation pixels determined the temperature; see `fit_temperature`."""
    return temperature != 1


def to_probabilities(logits: NDArray[np.floating], *, temperature: float = 1.0) -> Fractions:
    """Returns softmax(logits / temperature) over the last axis; the order of the classes is unchanged.

    Computed in double precision, because single precision would round confidences near 1 to 1.
    """
    return np.asarray(softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=-1))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Accuracy and mean confidence of the pixels in each confidence bin.

    Attributes:
        bin_edges: `(bins + 1,)` from 0 to 1; a bin includes its upper edge but not its lower one.
        mean_confidence: `(bins,)`; NaN for an empty bin.
        accuracy: `(bins,)` fraction classified correctly; NaN for an empty bin.
        count: `(bins,)` number of pixels.
        ece: expected calibration error: |accuracy - confidence| of the bins, averaged over pixels.
    """

    bin_edges: Fractions
    mean_confidence: Fractions
    accuracy: Fractions
    count: NDArray[np.int64]
    ece: float


def measure_calibration(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], *, num_bins: int = 15
) -> Reliability:
    """Returns the reliability of predicted probabilities in bins of equal width.

    Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, eqs. 1-3.
    The error depends on the number of bins: compare only errors computed with the same number.

    Args:
        probabilities: `(n, c)` with n ≥ 1.
        truth: `(n,)` true classes 0..c-1.
    """
    confidence = np.asarray(probabilities.max(axis=1), dtype=np.float64)
    is_correct = probabilities.argmax(axis=1) == truth
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.digitize(confidence, edges[1:-1], right=True)
    count = np.bincount(bins, minlength=num_bins)
    sum_confidence = np.bincount(bins, weights=confidence, minlength=num_bins)
    num_correct = np.bincount(bins, weights=is_correct, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        mean_confidence = sum_confidence / count
        accuracy = num_correct / count
    ece = float(np.abs(num_correct - sum_confidence).sum() / len(truth))
    return Reliability(edges, mean_confidence, accuracy, count.astype(np.int64), ece)


def describe_calibration(error: float, scaled_error: float, *, temperature: float, num_val: int) -> str:
    """Returns a sentence on calibration: the errors before and after scaling, or why none was fitted."""
    if is_scaled(temperature):
        return (
            f"Expected calibration error {100 * error:.2f} %, and {100 * scaled_error:.2f} % after "
            f"temperature scaling (T = {temperature:.2f}, fitted on {num_val:,} validation pixels)."
        )
    reason = "there are no validation pixels to fit a temperature on"
    if num_val:
        reason = f"the {num_val:,} validation pixels cannot determine a temperature (too few, or all correct)"
    return (
        f"The confidence is not calibrated: {reason}. Use it to rank pixels, not as a probability: its "
        f"expected calibration error is {100 * error:.2f} %."
    )


@dataclass(frozen=True, eq=False)
class Rejection:
    """Accuracy of the remaining pixels when the least confident ones are rejected first.

    Attributes:
        coverage: `(k,)` fraction of pixels kept at each of k distinct confidences, rising to 1.
        accuracy: `(k,)` fraction of the kept pixels classified correctly; the last is the overall accuracy.
    """

    coverage: Fractions
    accuracy: Fractions

    @property
    def aurc(self) -> float:
        """Returns the area under the risk-coverage curve; smaller is better.

        It is the error rate among the pixels with at least a pixel's confidence, averaged over all pixels:
        the overall error rate if confidences are uninformative. The curve is defined in Geifman & El-Yaniv
        2017, Selective Classification for Deep Neural Networks, https://arxiv.org/abs/1705.08500; its area
        in Geifman et al. 2019, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers,
        https://arxiv.org/abs/1805.08206.
        """
        return float(np.diff(self.coverage, prepend=0) @ (1 - self.accuracy))

    @property
    def steady(self) -> "Rejection":
        """Returns the curve at coverages of at least 2 %; below, single pixels dominate the accuracy."""
        is_steady = self.coverage >= 0.02
        return Rejection(self.coverage[is_steady], self.accuracy[is_steady])

    def accuracy_at(self, coverage: float) -> float:
        """Returns the accuracy at the smallest coverage that is at least the given fraction.

        Raises:
            ValueError: the coverage lies outside (0, 1].
        """
        if not 0 < coverage <= 1:
            raise ValueError(
                f"coverage = {coverage}: not a fraction in (0, 1]; use 0.9 for 90 % of the pixels"
            )
        return float(self.accuracy[np.searchsorted(self.coverage, coverage)])


def measure_rejection(confidence: NDArray[np.floating], is_correct: NDArray[np.bool_]) -> Rejection:
    """Returns accuracy against coverage; pixels of equal confidence are kept or rejected together.

    Args:
        confidence: `(n,)` with n ≥ 1.
        is_correct: `(n,)` whether each pixel is classified correctly.
    """
    levels, rank = np.unique(-confidence, return_inverse=True)  # the most confident first
    num_kept = np.bincount(rank, minlength=len(levels)).cumsum()
    num_correct = np.bincount(rank, weights=is_correct, minlength=len(levels)).cumsum()
    return Rejection(num_kept / len(confidence), num_correct / num_kept)
