"""Adjusted areas against the published example, the paper's formulas written out, and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hsi_se.evaluation.area import AreaEstimate, estimate_area

# Olofsson et al. 2014, Table 8, map classes in rows: deforestation, forest gain, stable forest and
# stable non-forest.
SAMPLE = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED = np.array([200_000, 150_000, 3_200_000, 6_450_000])
LANDSAT_PIXEL_M2 = 900.0


@pytest.fixture
def example() -> AreaEstimate:
    return estimate_area(SAMPLE.T, mapped_pixels=MAPPED, pixel_area_m2=LANDSAT_PIXEL_M2)


def test_the_published_example_has_its_areas(example):
    assert example.pixels.value[0] == pytest.approx(235_086, abs=1)
    assert example.pixels.margin[0] == pytest.approx(68_418, abs=1)
    np.testing.assert_allclose(example.hectares.value, [21_158, 11_686, 285_770, 581_386], atol=1)
    np.testing.assert_allclose(example.hectares.margin, [6_158, 3_756, 15_510, 16_282], atol=1)


def test_the_published_example_has_its_accuracies(example):
    assert example.overall_accuracy.value == pytest.approx(0.947, abs=5e-4)
    assert example.overall_accuracy.margin == pytest.approx(0.018, abs=5e-4)
    np.testing.assert_allclose(example.users_accuracy.value, [0.88, 0.73, 0.93, 0.96], atol=5e-3)
    np.testing.assert_allclose(example.users_accuracy.margin, [0.07, 0.10, 0.04, 0.02], atol=5e-3)
    np.testing.assert_allclose(example.producers_accuracy.value, [0.75, 0.85, 0.93, 0.96], atol=5e-3)


def test_the_published_example_has_its_producers_margins_where_eq_7_gives_them(example):
    # The paper prints 0.21, 0.23, 0.03 and 0.01. Its own eq. 7 and Table 8 give 0.25 and 0.02 for the
    # second and the fourth; the next two tests hold our margins to the equation and to a simulation.
    np.testing.assert_allclose(example.producers_accuracy.margin, [0.213, 0.254, 0.034, 0.018], atol=5e-4)


def test_producers_errors_are_eq_7_written_out(example):
    for j in range(4):
        num_called = SAMPLE.sum(axis=1)
        area = sum(MAPPED[i] / num_called[i] * SAMPLE[i, j] for i in range(4))
        users = SAMPLE[j, j] / num_called[j]
        producers = MAPPED[j] * users / area
        own = MAPPED[j] ** 2 * (1 - producers) ** 2 * users * (1 - users) / (num_called[j] - 1)
        others = 0.0
        for i in set(range(4)) - {j}:
            share = SAMPLE[i, j] / num_called[i]
            others += MAPPED[i] ** 2 * share * (1 - share) / (num_called[i] - 1)
        expected = np.sqrt(own + producers**2 * others) / area
        assert example.producers_accuracy.standard_error[j] == pytest.approx(expected)


def test_standard_errors_are_the_spread_over_repeated_samples():
    truth_in_stratum = np.array([[0.80, 0.15, 0.05], [0.10, 0.85, 0.05], [0.05, 0.15, 0.80]])
    mapped = np.array([200_000, 500_000, 300_000])
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(2000):
        sample = np.stack([rng.multinomial(300, shares) for shares in truth_in_stratum])
        estimate = estimate_area(sample.T, mapped_pixels=mapped)
        runs.append(
            [
                (part.value, part.standard_error)
                for part in (estimate.proportion, estimate.users_accuracy, estimate.producers_accuracy)
            ]
        )
    values, errors = np.moveaxis(np.array(runs), 2, 0)  # (run, quantity, class)
    np.testing.assert_allclose(errors.mean(axis=0), values.std(axis=0), rtol=0.06)
    np.testing.assert_allclose(values[:, 0].mean(axis=0), [0.225, 0.50, 0.275], atol=1e-3)


def test_rows_are_the_truth():
    # Half of the 20 test pixels called class 0 are of class 1, so half of its mapped area is too.
    estimate = estimate_area(np.array([[10, 0], [10, 20]]), mapped_pixels=np.array([400, 600]))
    assert estimate.proportion.value == pytest.approx([0.2, 0.8])
    assert estimate.users_accuracy.value.tolist() == [0.5, 1]
    assert estimate.producers_accuracy.value == pytest.approx([1, 0.75])


def test_the_area_on_the_ground_needs_the_area_of_a_pixel():
    assert estimate_area(SAMPLE.T, mapped_pixels=MAPPED).hectares is None


def test_one_test_pixel_in_a_stratum_gives_an_estimate_and_no_standard_error():
    estimate = estimate_area(np.array([[1, 2], [0, 8]]), mapped_pixels=np.array([10, 90]))
    assert estimate.proportion.value == pytest.approx([0.1 + 0.9 * 0.2, 0.9 * 0.8])
    assert np.isnan(estimate.proportion.standard_error).all()
    assert np.isnan(estimate.overall_accuracy.standard_error)
    assert np.isnan(estimate.producers_accuracy.margin).all()
    assert np.isnan(estimate.users_accuracy.standard_error).tolist() == [True, False]


def test_a_mapped_class_without_test_pixels_leaves_the_areas_unknown():
    estimate = estimate_area(np.array([[0, 2], [0, 8]]), mapped_pixels=np.array([10, 90]))
    assert np.isnan(estimate.proportion.value).all()
    assert np.isnan(estimate.overall_accuracy.value)
    assert np.isnan(estimate.producers_accuracy.value).all()
    assert estimate.users_accuracy.value.tolist() == pytest.approx([np.nan, 0.8], nan_ok=True)


def test_a_class_that_the_map_does_not_hold_changes_nothing_for_the_others(example):
    wider = np.pad(SAMPLE, (0, 1)).T
    estimate = estimate_area(wider, mapped_pixels=np.append(MAPPED, 0))
    for name in ("proportion", "users_accuracy", "producers_accuracy"):
        got, expected = getattr(estimate, name), getattr(example, name)
        np.testing.assert_allclose(got.value[:4], expected.value)
        np.testing.assert_allclose(got.standard_error[:4], expected.standard_error)
    assert estimate.proportion.value[4] == estimate.proportion.standard_error[4] == 0
    assert np.isnan([estimate.users_accuracy.value[4], estimate.producers_accuracy.value[4]]).all()


def test_a_class_that_the_map_misses_has_an_area_and_no_producers_accuracy_but_0():
    estimate = estimate_area(np.array([[0, 3], [0, 7]]), mapped_pixels=np.array([0, 100]))
    assert estimate.proportion.value == pytest.approx([0.3, 0.7])
    assert estimate.proportion.standard_error == pytest.approx([np.sqrt(0.3 * 0.7 / 9)] * 2)
    assert estimate.producers_accuracy.value.tolist() == [0, 1]
    assert estimate.producers_accuracy.standard_error.tolist() == [0, 0]


def test_more_test_pixels_than_map_pixels_are_refused():
    with pytest.raises(ValueError, match=r"mapped_pixels\[1\] = 5: 9 test pixels are mapped as this class"):
        estimate_area(np.array([[4, 2], [0, 7]]), mapped_pixels=np.array([50, 5]))


counts = arrays(np.int64, (3, 3), elements=st.integers(0, 40))
maps = arrays(np.int64, 3, elements=st.integers(200, 10**6))


@settings(deadline=None)
@given(counts, maps)
def test_adjusted_shares_are_shares(confusion, mapped):
    estimate = estimate_area(confusion, mapped_pixels=mapped)
    if (confusion.sum(axis=0) > 0).all():
        assert estimate.proportion.value.sum() == pytest.approx(1)
        assert (estimate.proportion.value >= 0).all()
        assert 0 <= estimate.overall_accuracy.value <= 1 + 1e-12
        assert estimate.pixels.value.sum() == pytest.approx(mapped.sum())
    else:
        assert np.isnan(estimate.proportion.value).all()


@settings(deadline=None)
@given(arrays(np.int64, 3, elements=st.integers(2, 40)), maps)
def test_a_perfect_map_is_left_as_it_is(support, mapped):
    estimate = estimate_area(np.diag(support), mapped_pixels=mapped)
    np.testing.assert_allclose(estimate.proportion.value, mapped / mapped.sum())
    assert (estimate.proportion.standard_error == 0).all()
    assert estimate.overall_accuracy.value == pytest.approx(1)


@settings(deadline=None)
@given(arrays(np.int64, (3, 3), elements=st.integers(1, 40)))
def test_a_sample_in_proportion_to_the_map_has_the_accuracies_of_its_counts(confusion):
    estimate = estimate_area(confusion, mapped_pixels=100 * confusion.sum(axis=0))
    assert estimate.overall_accuracy.value == pytest.approx(np.trace(confusion) / confusion.sum())
    np.testing.assert_allclose(estimate.producers_accuracy.value, np.diag(confusion) / confusion.sum(axis=1))
