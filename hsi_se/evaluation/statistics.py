"""Summarises repeated runs: mean and spread, and tests whether variants differ by more than chance."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from scipy.special import stdtr  # the distribution function of Student's t, a hundred times faster than scipy.stats.t
from scipy.stats import binomtest, chi2, f, rankdata, studentized_range, t

_CONFIDENCE = 0.95
LEVEL = 1 - _CONFIDENCE  # significance level of every test
_FEWEST_SCENES = 5  # with fewer, the chi-square and F approximations are poor

Numbers = Sequence[float | None] | NDArray[np.floating]
_FromNull = BeforeValidator(lambda value: math.nan if value is None else value)  # as JSON has it
Number = Annotated[float, Field(allow_inf_nan=True), _FromNull]
Range = tuple[float, float]  # the values that a mean can take
UNBOUNDED: Range = (-math.inf, math.inf)
AMOUNT: Range = (0.0, math.inf)
SHARE: Range = (0.0, 1.0)
SIGNED: Range = (-1.0, 1.0)  # κ, and differences of fractions


@dataclass(frozen=True)
class Summary:
    """The mean and spread of one quantity over seeds; NaN where there are too few values.

    `std` is the sample standard deviation (n-1); `low` and `high` are the ends of the 95 % Student t interval
    of the mean, clipped to the values that the mean can take.
    """

    n: int
    mean: Number
    std: Number
    low: Number
    high: Number


def summarize(values: Numbers, *, within: Range = UNBOUNDED) -> Summary:
    """Returns mean, standard deviation and 95 % confidence interval of the values; None and NaN are left out.

    The interval is for the mean over seeds of one scene and protocol, not over scenes, and assumes
    independent and approximately normal values. Student's interval is unbounded: accuracies of 90 and 99 %
    give 37 to 152 %. It is clipped to `within`, the lowest and highest possible mean; the true mean never
    lies in the clipped part, so the coverage is unchanged. An interval on the logit scale would be one for
    a different mean, and the logits of 0 and 1 are infinite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    n = len(numbers)
    mean = float(numbers.mean()) if n else math.nan
    if n < 2:
        return Summary(n, mean, math.nan, math.nan, math.nan)
    std = float(numbers.std(ddof=1))
    # t.interval would give NaN where all values are equal; the interval is then just the mean.
    margin = _student(n - 1) * std / n**0.5
    return Summary(n, mean, std, max(mean - margin, within[0]), min(mean + margin, within[1]))


def estimate_group_mean(values: NDArray[np.floating], groups: NDArray[np.integer]) -> tuple[float, float]:
    """Returns the mean of values `(n,)` and half its 95 % interval; values of a group may depend on each other.

    The variance is the cluster-robust CR2 estimate, with Satterthwaite's degrees of freedom, for a regression
    on a constant (Bell & McCaffrey 2002, *Bias reduction in standard errors for linear regression with
    multi-stage samples*; Imbens & Kolesár 2016, REStat 98). They allow for few groups, at least two, of
    unequal size. With equal sizes this is Student's interval of the groups' means.
    """
    group_of = np.unique(groups, return_inverse=True)[1]
    mean, share = float(np.mean(values)), np.bincount(group_of) / len(values)  # (G,)
    residuals = np.bincount(group_of, values - mean) / len(values)
    weight = share**2 / (1 - share)
    degrees = 1 / ((share**2).sum() + weight.sum() ** 2 - (weight**2).sum())
    return mean, float(t.ppf(1 - LEVEL / 2, degrees) * np.sqrt((residuals**2 / (1 - share)).sum()))


@functools.cache
def _student(degrees: int) -> float:
    return float(t.ppf((1 + _CONFIDENCE) / 2, degrees))


# ------------------------------------------------------------------------------------- two variants


@dataclass(frozen=True)
class PairedTest:
    """A comparison of two variants over the same seeds."""

    difference: Summary
    rank_sum: float  # Wilcoxon's T: the smaller of the rank sums of positive and negative differences
    p: float  # two-sided, of the exact signed-rank test; 1 if all differences are zero
    effect_size: Number  # Cohen's d for paired values: mean over standard deviation; NaN if all are equal
    rank_biserial: Number  # difference of those rank sums over their total (Kerby 2014); NaN if all are zero


def compare_pairs(differences: Numbers, *, within: Range = UNBOUNDED) -> PairedTest:
    """Returns the exact signed-rank test of paired differences (Wilcoxon 1945), with effect sizes.

    The differences are one per seed, first variant minus second. Zeros are dropped and ties receive their mean rank.
    The p-value counts all 2ⁿ assignments of signs to these ranks, so it is exact with ties too.
    """
    numbers = np.asarray(differences, dtype=np.float64).round(12)  # so that rounding errors do not break ties
    summary = summarize(numbers, within=within)
    nonzero = numbers[np.abs(numbers) > 0]
    ranks = (2 * rankdata(np.abs(nonzero))).astype(np.int64)  # doubled, so that mean ranks are integers
    positive, negative = int(ranks[nonzero > 0].sum()), int(ranks[nonzero < 0].sum())
    chance = np.ones(1)  # probability of each doubled rank sum under random signs
    for rank in ranks:
        moved = np.pad(chance, (int(rank), 0))
        moved[: len(chance)] += chance
        chance = moved / 2
    smaller = min(positive, negative)
    return PairedTest(
        difference=summary,
        rank_sum=smaller / 2,
        p=min(1.0, 2 * float(chance[: smaller + 1].sum())),
        effect_size=summary.mean / summary.std if len(np.unique(numbers)) > 1 else math.nan,
        rank_biserial=(positive - negative) / (positive + negative) if len(ranks) else math.nan,
    )


def least_p(num_pairs: int) -> float:
    """Returns the smallest two-sided p of a signed-rank test with this many pairs: all signs equal."""
    return min(1.0, 2.0 ** (1 - num_pairs))


def fewest_pairs(num_tests: int = 1) -> int:
    """Returns the fewest pairs with which the best of `num_tests` tests reaches 5 % by Holm's adjustment."""
    return next(pairs for pairs in itertools.count(1) if num_tests * least_p(pairs) <= LEVEL)


def adjust_holm(p_values: Numbers) -> NDArray[np.float64]:
    """Returns p-values adjusted for multiple testing (Holm 1979), in the order given.

    Rejecting those of at most α keeps the family-wise error rate at or below α under any dependence.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


@dataclass(frozen=True)
class McNemarTest:
    """McNemar's exact test of two trained networks on the same test pixels."""

    only_baseline: int  # pixels that only the baseline's run classifies correctly
    only_variant: int
    p: float  # two-sided; 1 without discordant pixels


def compare_correct(baseline: NDArray[np.bool_], variant: NDArray[np.bool_]) -> McNemarTest:
    """Returns the exact McNemar test (McNemar 1947) of which pixels `(n,)` two classifiers get right.

    Under the null hypothesis each pixel that only one classifier gets right is as likely the other's.
    """
    only_baseline, only_variant = int((baseline & ~variant).sum()), int((variant & ~baseline).sum())
    discordant = only_baseline + only_variant
    p = float(binomtest(only_baseline, discordant).pvalue) if discordant else 1.0
    return McNemarTest(only_baseline, only_variant, p)


# ------------------------------------------------------------------------------------- runs that share pixels

ROPE = 0.005  # differences of at most half a point are of no practical consequence


@dataclass(frozen=True)
class CorrelatedTest:
    """A comparison of two classifiers over runs whose training and test pixels overlap; NaN with fewer than two.

    `low` and `high` are the ends of the corrected 95 % interval of the mean difference, and `p` is that of the
    corrected t test. `better`, `equal` and `worse` are the probabilities that the mean difference is above, within
    and below ±0.5 points.
    """

    n: int
    correlation: float
    low: Number
    high: Number
    p: Number
    better: Number
    equal: Number
    worse: Number


def compare_correlated(differences: Numbers, *, correlation: float, within: Range = UNBOUNDED) -> CorrelatedTest:
    """Returns the corrected t test of paired differences, first minus second, and its Bayesian counterpart.

    With n runs of correlation ρ, the variance of their mean is estimated as (1/n + ρ/(1-ρ)) s², where the naive
    estimate is s²/n. Runs over random splits, or over r draws of k folds (n = r·k), have
    ρ = n_test / (n_train + n_test). The posterior of the mean difference under an uninformative prior is Student's t
    with n-1 degrees of freedom around the mean, with this variance.

    Sources: Nadeau & Bengio 2003, *Inference for the generalization error*, Machine Learning 52, 239-281; for repeated
    folds, Bouckaert & Frank 2004, *Evaluating the replicability of significance tests*, PAKDD; Bayesian: Benavoli,
    Corani, Demšar & Zaffalon 2017, *Time for a change*, JMLR 18(77).
    """
    numbers = np.asarray(differences, dtype=np.float64).round(12)
    n = len(numbers)
    if n < 2:
        return CorrelatedTest(n, correlation, *[math.nan] * 6)
    mean = float(numbers.mean())
    deviation = float(numbers.std(ddof=1)) * math.sqrt(1 / n + correlation / (1 - correlation))
    deviation = max(deviation, 1e-12)  # all differences are equal
    below, above, p = stdtr(
        n - 1, [(-ROPE - mean) / deviation, (mean - ROPE) / deviation, -abs(mean) / deviation]
    ).tolist()
    margin = _student(n - 1) * deviation
    return CorrelatedTest(
        n,
        correlation,
        low=max(mean - margin, within[0]),
        high=min(mean + margin, within[1]),
        p=2 * p,
        better=above,
        equal=1 - above - below,
        worse=below,
    )


def compare_runs(
    differences: Sequence[Sequence[float]], *, sizes: Sequence[tuple[int, int]], is_one_split: bool
) -> CorrelatedTest:
    """Returns the correlated test of the differences `(runs, folds)`; a run without folds has one.

    `sizes` are the numbers of training and of test pixels of each training. Where all runs have one split, only the
    training differs between them: runs without folds are then independent, and each fold counts once, with its mean.
    """
    correlation = float(np.mean([test / (train + test) for train, test in sizes])) if sizes else math.nan
    values = np.asarray(differences, dtype=np.float64)
    if is_one_split and len(values) > 1:
        if values.shape[1] == 1:
            correlation = 0.0
        values = values.mean(axis=0) if values.shape[1] > 1 else values
    values = values.ravel()
    return compare_correlated(values[~np.isnan(values)], correlation=correlation, within=SIGNED)


# ------------------------------------------------------------------------------------- over scenes


@dataclass(frozen=True)
class RankTest:
    """Average ranks of k variants over n scenes by mean OA, with tests of their differences (Demšar 2006)."""

    average_ranks: dict[str, float]  # 1 is the best
    chi_square: float  # Friedman's, as in Demšar 2006, without a correction for ties
    p: float  # of χ² with k-1 degrees of freedom
    # The less conservative F of Iman and Davenport 1980; None if all scenes give the same order: it is infinite.
    iman_davenport: float | None
    iman_davenport_p: float  # with k-1 and (k-1)(n-1) degrees of freedom
    critical_difference: float  # of average ranks, by Nemenyi's test at 5 %
    groups: tuple[tuple[str, ...], ...]  # the largest ones with ranks within the critical difference


def rank_over_scenes(scores: NDArray[np.floating], *, names: Sequence[str]) -> RankTest:
    """Returns Friedman's test and Nemenyi's critical difference of scores `(scenes, variants)`.

    Higher is better. Demšar 2006, Statistical Comparisons of Classifiers over Multiple Data Sets, 3.2.2.
    """
    n, k = scores.shape
    ranks = rankdata(-np.asarray(scores).round(12), axis=1).mean(axis=0)
    chi_square = 12 * n / (k * (k + 1)) * float((ranks**2).sum() - k * (k + 1) ** 2 / 4)
    rest = n * (k - 1) - chi_square
    ratio = (n - 1) * chi_square / rest if rest > 1e-9 else math.inf
    order, width, groups, last = np.argsort(ranks, kind="stable"), _nemenyi(n, k), [], 0
    for first in range(k):
        end = int(np.searchsorted(ranks[order], ranks[order[first]] + width, side="right"))
        if end - first > 1 and end > last:
            groups.append(tuple(names[place] for place in order[first:end]))
            last = end
    return RankTest(
        average_ranks=dict(zip(names, ranks.tolist(), strict=True)),
        chi_square=chi_square,
        p=float(chi2.sf(chi_square, k - 1)),
        iman_davenport=ratio if math.isfinite(ratio) else None,
        iman_davenport_p=float(f.sf(ratio, k - 1, (k - 1) * (n - 1))),
        critical_difference=width,
        groups=tuple(groups),
    )


def why_no_ranks(num_scenes: int, num_variants: int) -> str:
    """Returns why a critical-difference diagram would be uninformative; an empty string if it is not."""
    if num_variants < 3:
        return "Nemenyi's test needs at least three variants; two are compared by the signed-rank test"
    needed = _FEWEST_SCENES
    while _nemenyi(needed, num_variants) >= num_variants - 1:  # even the best and the worst cannot differ
        needed += 1
    if num_scenes >= needed:
        return ""
    return (
        f"Friedman's and Nemenyi's tests compare variants over scenes, not over seeds of one scene: "
        f"{num_variants} variants need at least {needed} scenes, this comparison has {num_scenes}"
    )


@functools.cache
def _nemenyi(num_scenes: int, num_variants: int) -> float:
    quantile = float(studentized_range.ppf(_CONFIDENCE, num_variants, np.inf)) / 2**0.5
    return quantile * math.sqrt(num_variants * (num_variants + 1) / (6 * num_scenes))


def points(fraction: float | None) -> str:
    """Returns a difference of fractions in percentage points, `+0.05` or `−0.11`; a dash for None or NaN."""
    return signed(None if fraction is None else 100 * fraction)


def signed(value: float | None) -> str:
    """Returns `+0.05` or `−0.11`; a dash for None or NaN."""
    return "–" if value is None or math.isnan(value) else f"{value:+z.2f}".replace("-", "−")


def probability(fraction: float) -> str:
    """Returns `97 %`, and `<1 %` or `>99 %` rather than a certainty."""
    return "<1 %" if fraction < 0.005 else ">99 %" if fraction > 0.995 else f"{100 * fraction:.0f} %"
