"""The tests that allow for pixels which runs share: against closed forms, the literature, and simulated runs."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.correlated_runs import RATES, measure_rates
from hsi_se.evaluation.statistics import SIGNED, compare_correlated, probability
from tests.conftest import ROOT

FIVE = np.array([1, 2, 3, 4, 5]) / 100


def t4(x: float) -> float:
    """The distribution function of Student's t with four degrees of freedom, in closed form."""
    part = x**2 / (4 + x**2)
    return 0.5 + 3 / 4 * math.copysign(part**0.5, x) * (1 - part / 3)


def test_five_differences_have_the_corrected_t_of_a_computation_by_hand():
    # Their mean is 3 points, their variance 2.5; with ρ = 1/10 that of the mean is (1/5 + 1/9) · 2.5 = 7/9.
    found = compare_correlated(FIVE, correlation=0.1)
    scale = math.sqrt(7 / 9)
    assert found.p == pytest.approx(2 * (1 - t4(3 / scale)))
    assert found.better == pytest.approx(1 - t4((0.5 - 3) / scale))
    assert found.worse == pytest.approx(t4((-0.5 - 3) / scale))
    assert found.better + found.equal + found.worse == pytest.approx(1)
    margin = 2.776 * scale / 100  # the table's t
    assert (found.low, found.high) == pytest.approx((0.03 - margin, 0.03 + margin), abs=1e-5)


def test_nadeau_and_bengios_variance_adds_the_ratio_of_test_to_training_pixels():
    # Their section 3: the variance of the mean of J runs is (1/J + n_test / n_train) s².
    num_train, num_test = 900, 100
    found = compare_correlated(FIVE, correlation=num_test / (num_train + num_test))
    variance = (1 / 5 + num_test / num_train) * FIVE.var(ddof=1)
    assert found.p == pytest.approx(2 * stats.t.sf(FIVE.mean() / math.sqrt(variance), 4))


@pytest.mark.parametrize(("draws", "folds"), [(1, 5), (10, 10)])
def test_repeated_folds_have_the_factor_of_bouckaert_and_frank(draws, folds):
    # F = 1 + r·k / (k - 1) times the naive variance, with r·k - 1 degrees of freedom.
    differences = np.random.default_rng(0).normal(0.01, 0.02, draws * folds)
    found = compare_correlated(differences, correlation=1 / folds)
    naive = stats.sem(differences)
    factor = 1 + draws * folds / (folds - 1)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(differences.mean()) / (naive * factor**0.5), draws * folds - 1))


def test_independent_runs_have_students_paired_test():
    found = compare_correlated(FIVE, correlation=0)
    assert found.p == pytest.approx(stats.ttest_1samp(FIVE, 0).pvalue)
    assert (found.low, found.high) == pytest.approx(stats.ttest_1samp(FIVE, 0).confidence_interval(0.95))


def test_equal_differences_leave_no_doubt_and_one_tells_nothing():
    assert compare_correlated([0.002] * 4, correlation=0.5).equal == pytest.approx(1)
    assert compare_correlated([0.02] * 4, correlation=0.5).better == pytest.approx(1)
    assert compare_correlated([0.0] * 4, correlation=0.5).p == 1
    one = compare_correlated([0.3], correlation=0.5)
    assert one.n == 1
    assert np.isnan([one.low, one.high, one.p, one.better, one.equal, one.worse]).all()


def test_the_corrected_interval_ends_where_differences_do():
    found = compare_correlated([-0.5, 0.9], correlation=0.9, within=SIGNED)
    assert (found.low, found.high) == (-1, 1)


def test_no_probability_is_said_to_be_a_certainty():
    assert [probability(each) for each in (0, 0.004, 0.006, 0.5, 0.994, 0.996, 1)] == [
        "<1 %", "<1 %", "1 %", "50 %", "99 %", ">99 %", ">99 %",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------- how often it errs


@pytest.mark.parametrize("design", RATES)
def test_where_there_is_no_difference_at_most_six_per_cent_of_corrected_tests_show_one(design):
    rates = measure_rates(design, repeats=1500, seed=1)
    assert rates.corrected <= 0.06
    assert rates.uncorrected > 2 * rates.corrected
    recorded = json.loads((ROOT / "benchmarks" / "results" / "correlated_runs.json").read_text())
    for name in ("uncorrected", "corrected"):
        assert recorded["rates"][design][name] == pytest.approx(getattr(rates, name), abs=0.05)


@pytest.mark.parametrize("design", RATES)
def test_the_rates_are_those_of_the_test_itself(design):
    """The simulation computes with arrays what the package computes for one comparison."""
    rates = measure_rates(design, repeats=20, seed=3)
    p = [compare_correlated(each, correlation=rates.correlation).p for each in rates.differences]
    assert rates.corrected == np.mean(np.array(p) <= 0.05)
