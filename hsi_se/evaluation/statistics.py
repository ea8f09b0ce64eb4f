"""What repeated runs say together: mean and spread, and whether variants differ by more than chance."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2, f, rankdata, studentized_range, t

_CONFIDENCE = 0.95
LEVEL = 1 - _CONFIDENCE  # of every test
_FEWEST_SCENES = 5  # below, the distributions that Friedman's statistic is compared with are no likeness

Numbers = Sequence[float] | NDArray[np.floating]
Range = tuple[float, float]  # where a mean can lie
UNBOUNDED: Range = (-math.inf, math.inf)
AMOUNT: Range = (0.0, math.inf)
SHARE: Range = (0.0, 1.0)
SIGNED: Range = (-1.0, 1.0)  # κ, and differences of shares


@dataclass(frozen=True)
class Summary:
    """A number over seeds.

    Attributes:
        n: How many values there are.
        mean: Their mean; NaN where there is none.
        std: Sample standard deviation (n-1); NaN below two values.
        low: Lower end of the 95 % Student t interval of the mean, cut where the mean cannot lie; NaN below
            two values.
        high: Upper end.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


def summarize(values: Numbers, *, within: Range = UNBOUNDED) -> Summary:
    """Returns the summary of the values that are numbers: NaN is dropped, and `n` counts the rest.

    The interval is for the mean over seeds of one scene and protocol, and takes the values as independent
    and about normal. It says nothing about another scene.

    Student's interval knows no bounds: two accuracies of 90 and 99 % give 37 to 152 %. It is cut to
    where the mean of such numbers can lie (`within`). The true mean never lies in what is cut off, so that
    what is left holds it as often: in 95 of 100 series. An interval on a scale without bounds (the logit)
    would end inside too, but it is about another mean, and accuracies of 0 and 1 have no place on it.
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    n = len(numbers)
    mean = float(numbers.mean()) if n else float("nan")
    if n < 2:
        return Summary(n, mean, float("nan"), float("nan"), float("nan"))
    std = float(numbers.std(ddof=1))
    # Not t.interval: that is NaN where all values are the same, and the interval is then the mean alone.
    margin = _student(n - 1) * std / n**0.5
    least, most = within
    return Summary(n, mean, std, max(mean - margin, least), min(mean + margin, most))


@functools.cache
def _student(degrees: int) -> float:
    return float(t.ppf((1 + _CONFIDENCE) / 2, degrees))


# ------------------------------------------------------------------------------------- two variants


@dataclass(frozen=True)
class PairedTest:
    """One variant against another over the same seeds.

    Attributes:
        difference: The summary of the differences.
        rank_sum: Wilcoxon's T, the smaller of the rank sums of positive and of negative differences.
        p: Two-sided, of the exact signed-rank test; 1 where no difference is left to test.
        effect_size: Cohen's d of paired values, mean over standard deviation; NaN where that is 0.
        rank_biserial: Rank sum in favour minus against, over both (Kerby 2014); NaN without differences.
    """

    difference: Summary
    rank_sum: float
    p: float
    effect_size: float
    rank_biserial: float


def compare_pairs(differences: Numbers, *, within: Range = UNBOUNDED) -> PairedTest:
    """Returns the exact signed-rank test of paired differences (Wilcoxon 1945), and what stands beside it.

    Differences of zero are dropped, equal ones share their mean rank, and p comes from all 2ⁿ ways to
    sign these very ranks, so that it is exact with ties too. `within` is as in `summarize`.
    """
    numbers = np.asarray(differences, dtype=np.float64).round(12)  # equal differences of fractions are equal
    summary = summarize(numbers, within=within)
    nonzero = numbers[np.abs(numbers) > 0]
    ranks = (2 * rankdata(np.abs(nonzero))).astype(np.int64)  # doubled, so that mean ranks are whole
    positive, negative = int(ranks[nonzero > 0].sum()), int(ranks[nonzero < 0].sum())
    chance = np.ones(1)  # of each doubled rank sum, under random signs
    for rank in ranks:
        moved = np.pad(chance, (int(rank), 0))
        moved[: len(chance)] += chance
        chance = moved / 2
    smaller = min(positive, negative)
    return PairedTest(
        difference=summary,
        rank_sum=smaller / 2,
        p=min(1.0, 2 * float(chance[: smaller + 1].sum())),
        effect_size=summary.mean / summary.std if len(np.unique(numbers)) > 1 else float("nan"),
        rank_biserial=(positive - negative) / (positive + negative) if len(ranks) else float("nan"),
    )


def least_p(num_pairs: int) -> float:
    """The smallest p that a two-sided signed-rank test of so many pairs can have: all signs the same."""
    return min(1.0, 2.0 ** (1 - num_pairs))


def fewest_pairs(num_tests: int = 1) -> int:
    """The fewest pairs with which the best of so many signed-rank tests can reach 5 % after Holm."""
    pairs = 1
    while num_tests * least_p(pairs) > LEVEL:
        pairs += 1
    return pairs


def adjust_holm(p_values: Numbers) -> NDArray[np.float64]:
    """Returns p-values adjusted for their number, in their order (Holm 1979).

    Rejecting those at most α bounds the chance of any false rejection by α, whatever their dependence.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def compare_correct(only_first: int, only_second: int) -> float:
    """Returns the exact two-sided p of McNemar's test, from the pixels that one classifier alone calls right.

    Under no difference each such pixel is the one's or the other's by the toss of a coin (McNemar 1947).
    """
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


# ------------------------------------------------------------------------------------- over scenes


@dataclass(frozen=True, eq=False)
class RankTest:
    """Variants ranked over scenes.

    Attributes:
        average_ranks: `(k,)`; 1 is the best.
        chi_square: Friedman's, as Demšar 2006 writes it, without a correction for ties.
        p: Of it, from χ² with k-1 degrees of freedom.
        iman_davenport: The less conservative F of Iman and Davenport 1980; inf where all scenes agree.
        iman_davenport_p: Of it.
        critical_difference: Of average ranks, by Nemenyi's test at 5 %.
    """

    average_ranks: NDArray[np.float64]
    chi_square: float
    p: float
    iman_davenport: float
    iman_davenport_p: float
    critical_difference: float

    def find_groups(self) -> list[list[int]]:
        """Returns the largest sets of variants whose ranks lie within the critical difference."""
        order = np.argsort(self.average_ranks, kind="stable")
        ranks = self.average_ranks[order]
        groups: list[list[int]] = []
        last = 0
        for first in range(len(order)):
            end = int(np.searchsorted(ranks, ranks[first] + self.critical_difference, side="right"))
            if end - first > 1 and end > last:
                groups.append(order[first:end].tolist())
                last = end
        return groups


def rank_over_scenes(scores: NDArray[np.floating]) -> RankTest:
    """Returns Friedman's test and Nemenyi's critical difference of scores `(scenes, variants)`, high is good.

    Demšar 2006, Statistical Comparisons of Classifiers over Multiple Data Sets, section 3.2.2.
    """
    n, k = scores.shape
    ranks = rankdata(-np.asarray(scores).round(12), axis=1).mean(axis=0)
    chi_square = 12 * n / (k * (k + 1)) * float((ranks**2).sum() - k * (k + 1) ** 2 / 4)
    rest = n * (k - 1) - chi_square
    ratio = (n - 1) * chi_square / rest if rest > 1e-9 else float("inf")
    return RankTest(
        average_ranks=ranks,
        chi_square=chi_square,
        p=float(chi2.sf(chi_square, k - 1)),
        iman_davenport=ratio,
        iman_davenport_p=float(f.sf(ratio, k - 1, (k - 1) * (n - 1))),
        critical_difference=_nemenyi(n, k),
    )


def why_no_ranks(num_scenes: int, num_variants: int) -> str:
    """Returns why a critical-difference diagram would show nothing, or an empty text where it can."""
    if num_variants < 3:
        return f"{num_variants} variants need no ranking: the signed-rank test compares two"
    needed = _FEWEST_SCENES
    while _nemenyi(needed, num_variants) >= num_variants - 1:  # not even the first and the last differ
        needed += 1
    if num_scenes >= needed:
        return ""
    return (
        f"Friedman's and Nemenyi's tests rank variants over scenes, and seeds of one scene are no scenes: "
        f"{num_scenes} here, and {num_variants} variants need at least {needed}"
    )


@functools.cache
def _nemenyi(num_scenes: int, num_variants: int) -> float:
    quantile = float(studentized_range.ppf(_CONFIDENCE, num_variants, np.inf)) / 2**0.5
    return quantile * math.sqrt(num_variants * (num_variants + 1) / (6 * num_scenes))


def describe_splits(num_splits: int, num_seeds: int) -> str:
    """Whether the spread over seeds contains that of the pixels drawn, in words."""
    if num_splits == num_seeds:
        return "Every seed has its own split: the spread is that of the pixels drawn and of the training."
    if num_splits == 1:
        return "All seeds share one split: the spread is that of the training alone."
    return f"The {num_seeds} seeds have {num_splits} different splits between them."
