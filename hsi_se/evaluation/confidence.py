"""Measures how reliable a network's confidence is: temperature scaling, calibration and rejection.

Axes: n pixels, c classes. A pixel's confidence is the probability of its predicted class.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from hsi_se.evaluation.metrics import Fractions
from hsi_se.evaluation.statistics import estimate_group_mean
from hsi_se.system.files import fill_template
from hsi_se.system.forms import Count, Positive

_MIN_PIXELS, _MIN_GROUPS, _NUM_FOLDS = 30, 6, 10  # see `fit_scaling`
_TEMPERATURES = (0.05, 20.0)  # the lowest and the highest


@dataclass(frozen=True)
class TemperatureScaling:
    """The temperature of a classifier's probabilities, with the evidence that it improves them."""

    temperature: Positive = 1.0  # T, by which logits are divided; 1 unless the gain is shown
    source: Literal["cross-fit", "validation"] | None = None  # of the pixels it was fitted on
    num_pixels: Count = 0
    num_groups: Count = 0  # pixels of a group are not independent of each other
    gain: float | None = None  # in log-likelihood per pixel, in nats, on pixels left out of the fit
    gain_low: float | None = None  # ends of its 95 % interval
    gain_high: float | None = None
    lack: str = ""  # why the probabilities are not calibrated, and the remedy; empty if they are

    @property
    def is_scaled(self) -> bool:
        return not self.lack

    @property
    def about(self) -> str:
        """Returns `temperature scaling (T = 1.52, …)`, or `not calibrated: ` and the reason."""
        if self.lack:
            return f"not calibrated: {self.lack}"
        fit = f"T = {self.temperature:.2f}, fitted on {self.describe_pixels()}"
        return f"temperature scaling ({fit}; {self.describe_gain()})"

    def describe_pixels(self) -> str:
        kind = "training pixels by cross-fitting" if self.source == "cross-fit" else "validation pixels"
        return f"{self.num_pixels:,} {kind}"

    def describe_gain(self) -> str:
        values = (self.gain, self.gain_low, self.gain_high)
        gain, low, high = (f"{value or 0:+.3f}".replace("-", "−") for value in values)
        return f"gain in log-likelihood {gain} per pixel, 95 % interval {low} to {high}"


def fit_scaling(
    logits: NDArray[np.floating],
    truth: NDArray[np.integer],
    *,
    source: Literal["cross-fit", "validation"],
    groups: NDArray[np.integer],
    folds: NDArray[np.integer] | None = None,
) -> TemperatureScaling:
    """Returns the temperature fitted on some pixels, or T = 1 unless it is shown to help on others.

    The gain of each pixel is log softmax(logits / T) - log softmax(logits) at its true class. Its T is fitted
    on the other folds. The interval of the mean gain treats groups as the independent units (see
    `estimate_group_mean`). The temperature is used if the interval lies above 0, and so does that of the
    log-likelihood over that of equal probabilities: where predictions are no better than chance, the best
    temperature is the largest, whatever the classifier does elsewhere.

    At least 30 pixels are needed, below which a mean is not close to normal, one of them misclassified, and
    six groups: with five, gains in all of them have a probability of 1 in 16 by chance.

    Args:
        logits: `(n, c)` of pixels that the classifier was not trained on.
        truth: `(n,)` true classes 0..c-1.
        groups: `(n,)` group of each pixel, such as its field; each pixel its own if they are independent.
        folds: `(n,)` fold of each pixel, at least two; by default, ten folds of whole groups.
    """
    unique, group = np.unique(groups, return_inverse=True)
    found = TemperatureScaling(source=source, num_pixels=len(truth), num_groups=len(unique))
    scores = np.asarray(logits, dtype=np.float64)
    lack = find_lack(found, num_wrong=int((scores.argmax(axis=1) != truth).sum()))
    if lack:
        return replace(found, lack=lack)
    folds = group % _NUM_FOLDS if folds is None else folds
    plain = _log_likelihood(scores, truth)
    gains = -plain
    for fold in np.unique(folds):
        inside = folds == fold
        temperature = fit_temperature(scores[~inside], truth[~inside])
        gains[inside] += _log_likelihood(scores[inside] / temperature, truth[inside])
    gain, margin = estimate_group_mean(gains, group)
    found = replace(found, gain=gain, gain_low=gain - margin, gain_high=gain + margin)
    skill, margin_of_skill = estimate_group_mean(gains + plain + np.log(scores.shape[1]), group)
    if gain > margin and skill > margin_of_skill:
        return replace(found, temperature=fit_temperature(scores, truth))
    what = f"do not show that a temperature helps ({found.describe_gain()})"
    if gain > margin:
        what = "are not shown to be predicted better than by chance, so they cannot fit a temperature"
    return replace(found, lack=f"the {found.describe_pixels()} {what}; label more training pixels")


def find_lack(found: TemperatureScaling, *, num_wrong: int) -> str:
    """Returns why pixels, of which some are misclassified, cannot show a gain, and the remedy; or nothing."""
    values = {"num_wrong": num_wrong, "fewest_pixels": _MIN_PIXELS, "fewest_groups": _MIN_GROUPS}
    return fill_template("hsi_se.evaluation", "lack.txt", found=found, **values)


def fit_temperature(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Returns the temperature T in [0.05, 20] that maximises the likelihood of softmax(logits / T).

    Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, sec. 4.2.
    Whether it helps on other pixels is what `fit_scaling` measures, whose `logits` and `truth` these are.
    """
    scores = np.asarray(logits, dtype=np.float64)
    # The loss is convex in 1 / T, so it has a single minimum along log T.
    found = minimize_scalar(
        lambda log_temperature: -_log_likelihood(scores / np.exp(log_temperature), truth).mean(),
        bounds=(np.log(_TEMPERATURES[0]), np.log(_TEMPERATURES[1])),
        method="bounded",
    )
    return float(np.exp(found.x))


def _log_likelihood(scores: Fractions, truth: NDArray[np.integer]) -> Fractions:
    """Returns `(n,)` the log-probability of each pixel's true class."""
    return np.asarray(log_softmax(scores, axis=1)[np.arange(len(truth)), truth])


def to_probabilities(logits: NDArray[np.floating], *, temperature: float = 1.0) -> Fractions:
    """Returns softmax(logits / temperature) over the last axis; the order of the classes is unchanged.

    Computed in double precision, because single precision would round confidences near 1 to 1.
    """
    return np.asarray(softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=-1))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Accuracy and mean confidence `(bins,)` of the pixels in each confidence bin; NaN for an empty bin."""

    bin_edges: Fractions  # (bins + 1,) from 0 to 1; a bin includes its upper edge but not its lower one
    mean_confidence: Fractions
    accuracy: Fractions
    count: NDArray[np.int64]
    ece: float  # expected calibration error: |accuracy - confidence| of the bins, averaged over pixels


def measure_calibration(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], *, num_bins: int = 15
) -> Reliability:
    """Returns the reliability of probabilities `(n, c)`, n ≥ 1, in bins of equal width; `truth` `(n,)` is 0..c-1.

    Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, eqs. 1-3.
    The error depends on the number of bins: compare only errors computed with the same number.
    """
    confidence = np.asarray(probabilities.max(axis=1), dtype=np.float64)
    is_correct = probabilities.argmax(axis=1) == truth
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.digitize(confidence, edges[1:-1], right=True)
    count, sum_confidence, num_correct = (
        np.bincount(bins, weights=weights, minlength=num_bins) for weights in (None, confidence, is_correct)
    )
    ece = float(np.abs(num_correct - sum_confidence).sum() / len(truth))
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        return Reliability(edges, sum_confidence / count, num_correct / count, count.astype(np.int64), ece)


def describe_calibration(error: float, scaled_error: float, *, scaling: TemperatureScaling) -> str:
    """Returns a sentence on calibration: the errors before and after scaling, or why none was used."""
    before, after = (f"{100 * each:.2f} %" for each in (error, scaled_error))
    if scaling.is_scaled:
        return f"Expected calibration error {before}, and {after} after {scaling.about}."
    advice = f"Use it to rank pixels, not as a probability: its expected calibration error is {before}."
    return f"The confidence is {scaling.about}. {advice}"


@dataclass(frozen=True, eq=False)
class Rejection:
    """Accuracy of the remaining pixels when the least confident ones are rejected first."""

    coverage: Fractions  # (k,) of pixels kept at each of k distinct confidences, rising to 1
    accuracy: Fractions  # (k,) of the kept pixels; the last is the overall accuracy

    @property
    def aurc(self) -> float:
        """Returns the area under the risk-coverage curve; smaller is better.

        It is the error rate among the pixels with at least a pixel's confidence, averaged over all pixels:
        the overall error rate if confidences are uninformative. Curve: Geifman & El-Yaniv 2017, Selective
        Classification for Deep Neural Networks, https://arxiv.org/abs/1705.08500; area: Geifman et al. 2019,
        Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, https://arxiv.org/abs/1805.08206.
        """
        return float(np.diff(self.coverage, prepend=0) @ (1 - self.accuracy))

    @property
    def steady(self) -> "Rejection":
        """Returns the curve at coverages of at least 2 %; below, single pixels dominate the accuracy."""
        is_steady = self.coverage >= 0.02
        return Rejection(self.coverage[is_steady], self.accuracy[is_steady])

    def accuracy_at(self, coverage: float) -> float:
        """Returns the accuracy at the smallest coverage that is at least a fraction; ValueError outside (0, 1]."""
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage = {coverage}: not a fraction in (0, 1]; use 0.9 for 90 % of the pixels")
        return float(self.accuracy[np.searchsorted(self.coverage, coverage)])


def measure_rejection(confidence: NDArray[np.floating], is_correct: NDArray[np.bool_]) -> Rejection:
    """Returns accuracy against coverage; pixels of equal confidence are kept or rejected together.

    `confidence` and `is_correct`, whether a pixel is classified correctly, are `(n,)` with n ≥ 1.
    """
    levels, rank = np.unique(-confidence, return_inverse=True)  # the most confident first
    num_kept = np.bincount(rank, minlength=len(levels)).cumsum()
    num_correct = np.bincount(rank, weights=is_correct, minlength=len(levels)).cumsum()
    return Rejection(num_kept / len(confidence), num_correct / num_kept)
