"""How far a pixel's confidence may be believed: temperature scaling, calibration and rejection.

Axes: n pixels, c classes. A pixel's confidence is the probability of the class it is called.
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
    """Returns the T in [0.05, 20] that makes softmax(logits / T) likeliest; fit it on validation pixels.

    Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, sec. 4.2.

    T is 1 where the pixels cannot tell: there are fewer than two, every logit of each is the same, or
    every one is called right. In the last case the likelihood only grows as T falls, so it has no
    maximum, and the smallest T would turn all confidences into 1 and lose their order.

    Args:
        logits: `(n, c)`.
        truth: `(n,)` classes 0..c-1.
    """
    pixels = np.arange(len(truth))
    scores = np.asarray(logits, dtype=np.float64)
    if len(truth) < 2 or (scores[pixels, truth] == scores.max(axis=1)).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -float(log_probabilities[pixels, truth].mean())

    # The loss is convex in 1 / T, so along log T it has one valley and a bounded search finds it.
    found = minimize_scalar(
        loss, bounds=(np.log(_MIN_TEMPERATURE), np.log(_MAX_TEMPERATURE)), method="bounded"
    )
    return float(np.exp(found.x))


def is_scaled(temperature: float) -> bool:
    """Whether validation pixels have had a say in the confidence; see `fit_temperature`."""
    return temperature != 1


def to_probabilities(logits: NDArray[np.floating], *, temperature: float = 1.0) -> Fractions:
    """Returns softmax(logits / temperature) over the last axis, which ranks the classes as the logits do.

    In double precision: single precision rounds confidences near 1 to 1 and loses their order.
    """
    return np.asarray(softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=-1))


@dataclass(frozen=True, eq=False)
class Reliability:
    """How accurate the pixels of each bin of confidence are.

    Attributes:
        bin_edges: `(bins + 1,)` from 0 to 1; a bin holds its upper edge and not its lower one.
        mean_confidence: `(bins,)`, NaN where a bin is empty.
        accuracy: `(bins,)` share called right, NaN where a bin is empty.
        count: `(bins,)` pixels.
        ece: expected calibration error: the mean over pixels of their bin's |accuracy - confidence|.
    """

    bin_edges: Fractions
    mean_confidence: Fractions
    accuracy: Fractions
    count: NDArray[np.int64]
    ece: float


def measure_calibration(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], *, num_bins: int = 15
) -> Reliability:
    """Returns the reliability of probabilities `(n, c)` for classes 0..c-1 `(n,)`, n ≥ 1.

    Bins of equal width, Guo et al. 2017, eqs. 1-3. The error depends on the number of bins: compare
    errors of the same number only.
    """
    confidence = np.asarray(probabilities.max(axis=1), dtype=np.float64)
    is_correct = probabilities.argmax(axis=1) == truth
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.digitize(confidence, edges[1:-1], right=True)
    count = np.bincount(bins, minlength=num_bins)
    sum_confidence = np.bincount(bins, weights=confidence, minlength=num_bins)
    num_correct = np.bincount(bins, weights=is_correct, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # an empty bin is 0 / 0
        mean_confidence = sum_confidence / count
        accuracy = num_correct / count
    ece = float(np.abs(num_correct - sum_confidence).sum() / len(truth))
    return Reliability(edges, mean_confidence, accuracy, count.astype(np.int64), ece)


def describe_calibration(error: float, scaled_error: float, *, temperature: float, num_val: int) -> str:
    """Expected calibration errors before and after temperature scaling, or why there was none, in words."""
    if is_scaled(temperature):
        return (
            f"Expected calibration error {100 * error:.2f} %, and {100 * scaled_error:.2f} % after "
            f"temperature scaling (T = {temperature:.2f}, fitted on {num_val:,} validation pixels)."
        )
    reason = "there are no validation pixels to fit a temperature on"
    if num_val:
        reason = f"the {num_val:,} validation pixels fix no temperature (all are called right, or too few)"
    return (
        f"The certainty is not calibrated: {reason}. It ranks pixels, and is no probability: its expected "
        f"calibration error is {100 * error:.2f} %."
    )


@dataclass(frozen=True, eq=False)
class Rejection:
    """The accuracy of the pixels that are kept when the least certain ones are rejected first.

    Attributes:
        coverage: `(k,)` share of pixels kept at each distinct confidence, rising to 1.
        accuracy: `(k,)` share of those kept that are called right; the last is the overall accuracy.
    """

    coverage: Fractions
    accuracy: Fractions

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve: the mean over pixels of the error among those as certain.

        The curve is Geifman & El-Yaniv 2017's, Selective Classification for Deep Neural Networks,
        https://arxiv.org/abs/1705.08500; its area Geifman et al. 2019's, Bias-Reduced Uncertainty Estimation
        for Deep Neural Classifiers, https://arxiv.org/abs/1805.08206. Smaller is better; confidences
        that say nothing score the overall error.
        """
        return float(np.diff(self.coverage, prepend=0) @ (1 - self.accuracy))

    @property
    def steady(self) -> "Rejection":
        """The part that a picture can show; below it, one wrong pixel moves the accuracy far."""
        is_steady = self.coverage >= 0.02
        return Rejection(self.coverage[is_steady], self.accuracy[is_steady])

    def accuracy_at(self, coverage: float) -> float:
        """The accuracy when as few pixels are kept as cover at least this share in (0, 1].

        Raises:
            ValueError: The share lies outside (0, 1].
        """
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage = {coverage}: a share of the pixels must lie in (0, 1]")
        return float(self.accuracy[np.searchsorted(self.coverage, coverage)])


def measure_rejection(confidence: NDArray[np.floating], is_correct: NDArray[np.bool_]) -> Rejection:
    """Returns accuracy against coverage for pixels `(n,)`, n ≥ 1; pixels equally certain go together."""
    levels, rank = np.unique(-confidence, return_inverse=True)  # the most certain first
    num_kept = np.bincount(rank, minlength=len(levels)).cumsum()
    num_correct = np.bincount(rank, weights=is_correct, minlength=len(levels)).cumsum()
    return Rejection(num_kept / len(confidence), num_correct / num_kept)
