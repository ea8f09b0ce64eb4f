"""Means and intervals over seeds against hand computation and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hsi_se.evaluation.statistics import summarize


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
@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=20).filter(lambda values: np.std(values) > 1e-6),
)
def test_the_interval_is_scipys(values):
    summary = summarize(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (summary.low, summary.high) == pytest.approx((low, high))


def test_the_interval_holds_the_mean_in_95_of_100_series():
    series = np.random.default_rng(0).normal(0.9, 0.02, size=(4000, 5))
    held = np.mean([summary.low <= 0.9 <= summary.high for summary in map(summarize, series)])
    assert held == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 4000))
