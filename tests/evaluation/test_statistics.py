"""Means and intervals over seeds against hand computation and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hsi_se.evaluation.statistics import (
    SHARE,
    SIGNED,
    adjust_holm,
    compare_correct,
    compare_pairs,
    fewest_pairs,
    least_p,
    rank_over_scenes,
    summarize,
    why_no_ranks,
)


def test_five_values_have_the_interval_of_the_t_table():
    summary = summarize([2, 4, 4, 5, 10])
    assert (summary.n, summary.mean) == (5, 5)
    assert summary.std == pytest.approx(3)  # squares 9 + 1 + 1 + 0 + 25 = 36, over 4
    margin = 2.776 * 3 / math.sqrt(5)  # the table's t for four degrees of freedom, two-sided 95 %
    assert (summary.low, summary.high) == pytest.approx((5 - margin, 5 + margin), abs=1e-3)


def test_one_value_has_a_mean_and_no_spread():
    summary = summarize([0.93])
    assert (summary.n, summary.mean) == (1, 0.93)
    assert np.isnan([summary.std, summary.low, summary.high]).all()


@pytest.mark.parametrize("values", [[], [float("nan")]])
def test_without_values_nothing_is_known(values):
    summary = summarize(values)
    assert summary.n == 0
    assert np.isnan([summary.mean, summary.std, summary.low, summary.high]).all()


def test_nan_is_dropped_and_not_counted():
    assert summarize([0.9, float("nan"), 0.8]) == summarize([0.9, 0.8])


def test_equal_values_have_an_interval_of_no_width():
    summary = summarize([0.5, 0.5, 0.5])
    assert (summary.std, summary.low, summary.high) == (0, 0.5, 0.5)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20).filter(lambda values: np.std(values) > 1e-6))
def test_the_interval_is_scipys(values):
    summary = summarize(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (summary.low, summary.high) == pytest.approx((low, high))


def test_the_interval_holds_the_mean_in_95_of_100_series():
    series = np.random.default_rng(0).normal(0.9, 0.02, size=(4000, 5))
    held = np.mean([summary.low <= 0.9 <= summary.high for summary in map(summarize, series)])
    assert held == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 4000))


def test_an_interval_of_shares_ends_where_shares_do():
    whole, cut = summarize([0.9, 0.99]), summarize([0.9, 0.99], within=SHARE)
    assert (whole.low, whole.high) == pytest.approx((0.3732, 1.5168), abs=1e-4)
    assert (cut.low, cut.high) == (whole.low, 1)
    assert (cut.n, cut.mean, cut.std) == (whole.n, whole.mean, whole.std)
    assert summarize([-0.2, 0.3], within=SIGNED).low == -1  # κ may be negative


def test_what_is_cut_off_never_holds_the_mean():
    series = np.random.default_rng(0).beta(8, 1, size=(2000, 3))
    num_cut = 0
    for values in series:
        whole, cut = summarize(values), summarize(values, within=SHARE)
        assert (whole.low <= 8 / 9 <= whole.high) == (cut.low <= 8 / 9 <= cut.high)
        num_cut += cut.high < whole.high
    assert num_cut > 1000


# ------------------------------------------------------------------------------------- two variants

# Heights of maize, crossed minus self-fertilised, in eighths of an inch (Darwin 1876; Fisher 1935).
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_darwins_maize_has_its_known_signed_rank_test():
    found = compare_pairs(MAIZE)
    assert found.rank_sum == 24  # the two negative differences have ranks 14 and 10
    assert found.p == pytest.approx(stats.wilcoxon(MAIZE, method="exact").pvalue)
    assert found.rank_biserial == pytest.approx((96 - 24) / 120)
    assert found.effect_size == pytest.approx(np.mean(MAIZE) / np.std(MAIZE, ddof=1))
    # Fisher's own t of this example is 2.148.
    assert found.effect_size * math.sqrt(15) == pytest.approx(2.148, abs=5e-4)


@pytest.mark.parametrize(("n", "critical"), [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (11, 10), (12, 13)])
def test_critical_values_are_those_of_wilcoxons_table(n, critical):
    def p_of(rank_sum: int) -> float:
        """Negative differences of the greatest ranks that sum to it."""
        signs, left = np.ones(n), rank_sum
        for rank in range(n, 0, -1):
            if rank <= left:
                signs[rank - 1], left = -1, left - rank
        return compare_pairs(signs * np.arange(1, n + 1)).p

    assert p_of(critical) <= 0.05 < p_of(critical + 1)


@given(st.lists(st.integers(-4, 4), max_size=9))
@settings(max_examples=60)
def test_with_ties_and_zeros_p_is_the_share_of_all_signings_as_extreme(values):
    nonzero = np.array([value for value in values if value])
    ranks = stats.rankdata(np.abs(nonzero))
    seen = min(ranks[nonzero > 0].sum(), ranks[nonzero < 0].sum())
    sums = [sum(ranks[list(signs)]) for signs in itertools.product([False, True], repeat=len(ranks))]
    expected = np.mean([min(total, ranks.sum() - total) <= seen for total in sums])
    assert compare_pairs(np.array(values) / 7).p == pytest.approx(expected)


def test_differences_that_are_equal_but_for_rounding_are_ties():
    tied = compare_pairs([0.97 - 0.96, 0.96 - 0.95, 0.5 - 0.51, 0.2])
    assert tied.rank_sum == 2


def test_the_interval_of_a_difference_of_shares_stays_within_one_of_nothing_and_all():
    found = compare_pairs([0.05, 0.45], within=SIGNED)
    assert (found.difference.low, found.difference.high) == (-1, 1)
    assert found.p == compare_pairs([0.05, 0.45]).p
    assert compare_pairs([1, 9]).difference.high > 9


def test_below_six_pairs_nothing_reaches_five_per_cent():
    assert compare_pairs([1, 2, 3, 4, 5]).p == least_p(5) == 0.0625
    assert compare_pairs([1, 2, 3, 4, 5, 6]).p == least_p(6) == 0.03125
    assert fewest_pairs() == 6
    assert fewest_pairs(7) == 9  # 7 · 2/2⁸ is 0.0547, 7 · 2/2⁹ is 0.0273


def test_holms_procedure_decides_as_in_demsars_example():
    # Section 3.2.2: p of 0.016, 0.019 and 0.607 against 0.017, 0.025 and 0.05 reject the first two.
    adjusted = adjust_holm([0.607, 0.016, 0.019])
    assert adjusted == pytest.approx([0.607, 0.048, 0.048])
    assert (adjusted <= 0.05).tolist() == [False, True, True]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferronis_and_keeps_the_order(p_values):
    p = np.array(p_values)
    adjusted = adjust_holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * p) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def count_discordant(only_baseline: int, only_variant: int) -> float:
    """McNemar's p of so many discordant pixels among others that both get right or both wrong."""
    baseline = np.repeat([True, False, True, False], [only_baseline, only_variant, 3, 4])
    variant = np.repeat([False, True, True, False], [only_baseline, only_variant, 3, 4])
    found = compare_correct(baseline, variant)
    assert (found.only_baseline, found.only_variant) == (only_baseline, only_variant)
    return found.p


def test_mcnemars_exact_p_is_that_of_the_coin():
    assert count_discordant(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)
    assert count_discordant(0, 0) == 1
    # Agresti 1990, table 10.1: 86 and 150 changed their minds; z² = 17.36.
    exact = 2 * sum(math.comb(236, k) for k in range(87)) / 2**236
    assert count_discordant(86, 150) == count_discordant(150, 86) == pytest.approx(exact)
    assert exact == pytest.approx(stats.chi2.sf((150 - 86) ** 2 / 236, 1), rel=0.25)


# ------------------------------------------------------------------------------------- over scenes

# Demšar 2006, table 6: AUC of C4.5, +m, +cf and +m+cf on 14 data sets. Of the two 0.975 of the row before
# the last, the paper ranks the third variant before the fourth.
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_demsars_example_has_his_ranks_statistics_and_critical_difference():
    found = rank_over_scenes(AUC, names=("C4.5", "+m", "+cf", "+m+cf"))
    ranks = {"C4.5": 3.143, "+m": 2.000, "+cf": 2.893, "+m+cf": 1.964}
    assert found.average_ranks == pytest.approx(ranks, abs=5e-4)
    assert found.chi_square == pytest.approx(9.28, abs=5e-3)
    assert found.iman_davenport == pytest.approx(3.69, abs=5e-3)
    assert found.iman_davenport_p < 0.05  # the critical F(3, 39) is 2.85
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    # The best and the worst are 1.18 apart: as he says, the post-hoc test tells no two of them apart.
    assert [{*group} for group in found.groups] == [{*ranks}]


@pytest.mark.parametrize(
    ("k", "q"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_nemenyis_quantiles_are_those_of_demsars_table(k, q):
    scores = np.random.default_rng(0).random((6, k))
    found = rank_over_scenes(scores, names="abcdefghij"[:k])
    assert found.critical_difference == pytest.approx(q * math.sqrt(k * (k + 1) / 36), rel=5e-4)


def test_friedmans_statistic_without_ties_is_scipys():
    scores = np.random.default_rng(1).random((9, 5))
    found, expected = rank_over_scenes(scores, names="abcde"), stats.friedmanchisquare(*scores.T)
    assert found.chi_square == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)


def test_scenes_that_agree_entirely_leave_no_doubt():
    found = rank_over_scenes(np.tile([0.9, 0.8, 0.7], (30, 1)), names="abc")
    assert found.average_ranks == {"a": 1, "b": 2, "c": 3}
    assert (found.iman_davenport, found.iman_davenport_p) == (None, 0)  # an infinite F
    assert found.groups == ()


def test_a_ranking_needs_scenes_and_says_how_many():
    assert "8 variants need at least 5 scenes, this comparison has 1" in why_no_ranks(1, 8)
    assert "two" in why_no_ranks(9, 2)
    assert why_no_ranks(5, 8) == ""


@given(st.integers(1, 40), st.lists(st.integers(100, 900), min_size=2, max_size=8))
def test_a_gain_of_as_many_pixels_in_every_seed_has_no_spread(gain, correct):
    """But for the rounding of fractions, which must not pass for one."""
    found = compare_pairs([(n + gain) / 1000 - n / 1000 for n in correct])
    assert math.isnan(found.effect_size)
    assert compare_pairs([1e-17] * 6).p == 1
