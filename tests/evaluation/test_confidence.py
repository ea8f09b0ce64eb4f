"""Calibration, temperature and rejection against hand counts and simulated truth."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from scipy.stats import ttest_1samp
from sklearn.metrics import log_loss

from hsi_se.evaluation.confidence import (
    TemperatureScaling,
    describe_calibration,
    fit_scaling,
    fit_temperature,
    measure_calibration,
    measure_rejection,
    to_probabilities,
)


def simulate(num_pixels: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(n, 5)` and classes drawn with just the probabilities that the logits give."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, size=(num_pixels, 5))
    chances = softmax(logits, axis=1).cumsum(axis=1)
    truth = (chances < rng.random((num_pixels, 1))).sum(axis=1).clip(max=4)
    return logits, truth


def two_class(confidence: list[float]) -> np.ndarray:
    """Probabilities `(n, 2)` of pixels that are all called class 0."""
    return np.stack([confidence, 1 - np.array(confidence)], axis=1)


def test_a_hand_count_of_the_calibration_error():
    # Halves of [0, 1]; all are called class 0, which pixels 0, 1 and 3 are.
    reliability = measure_calibration(
        np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.7, 0.3, 0], [0.4, 0.3, 0.3]]), np.array([0, 0, 1, 0]), num_bins=2
    )
    assert reliability.bin_edges.tolist() == [0, 0.5, 1]
    assert reliability.count.tolist() == [1, 3]
    assert reliability.accuracy == pytest.approx([1, 2 / 3])
    assert reliability.mean_confidence == pytest.approx([0.4, 0.8])
    assert reliability.ece == pytest.approx(1 / 4 * 0.6 + 3 / 4 * (0.8 - 2 / 3))


def test_an_empty_bin_is_nan_and_costs_nothing():
    reliability = measure_calibration(two_class([1, 1]), np.array([0, 0]), num_bins=4)
    assert reliability.count.tolist() == [0, 0, 0, 2]
    assert np.isnan(reliability.accuracy).tolist() == [True, True, True, False]
    assert np.isnan(reliability.mean_confidence).tolist() == [True, True, True, False]
    assert reliability.ece == 0


def test_a_bin_holds_its_upper_edge():
    reliability = measure_calibration(two_class([0.5, 0.75, 1]), np.array([0, 0, 0]), num_bins=4)
    assert reliability.count.tolist() == [0, 1, 1, 1]


def test_certain_and_always_wrong_is_an_error_of_1():
    assert measure_calibration(two_class([1, 1]), np.array([1, 1])).ece == 1


def test_probabilities_that_are_true_have_almost_no_error():
    logits, truth = simulate(40_000)
    assert measure_calibration(softmax(logits, axis=1), truth).ece < 0.01
    assert measure_calibration(softmax(3 * logits, axis=1), truth).ece > 0.1


@settings(deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 30), st.just(4)), elements=st.floats(-30, 30)),
    st.integers(1, 20),
    st.integers(0, 3),
)
def test_the_calibration_error_is_a_fraction_and_every_pixel_is_in_a_bin(logits, num_bins, label):
    reliability = measure_calibration(to_probabilities(logits), np.full(len(logits), label), num_bins=num_bins)
    assert 0 <= reliability.ece <= 1 + 1e-12
    assert reliability.count.sum() == len(logits)
    filled = reliability.count > 0
    gap = np.abs(reliability.accuracy - reliability.mean_confidence)[filled]
    assert reliability.ece == pytest.approx(np.average(gap, weights=reliability.count[filled]))


@pytest.mark.parametrize("factor", [0.25, 1, 3])
def test_the_temperature_undoes_a_factor_on_true_logits(factor):
    logits, truth = simulate(40_000)
    assert fit_temperature(factor * logits, truth) == pytest.approx(factor, rel=0.03)


def test_the_temperature_is_the_likeliest():
    logits, truth = simulate(300, seed=1)
    temperature = fit_temperature(logits.astype(np.float32), truth)
    losses = {t: log_loss(truth, to_probabilities(logits, temperature=t)) for t in np.linspace(0.2, 5, 500)}
    assert temperature == pytest.approx(min(losses, key=losses.get), abs=0.01)


def test_the_temperature_stays_within_its_bounds():
    logits = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert fit_temperature(logits, np.array([1, 1])) == pytest.approx(20, rel=1e-3)  # always wrong
    truth = np.array([0] * 99 + [1])
    assert fit_temperature(np.tile([0.01, 0.0], (100, 1)), truth) == pytest.approx(0.05, rel=1e-3)


def scale(logits: np.ndarray, truth: np.ndarray, **changes) -> TemperatureScaling:
    return fit_scaling(logits, truth, **{"source": "validation", "groups": np.arange(len(truth)), **changes})


@pytest.mark.parametrize(
    ("logits", "truth", "why"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=int), "0 validation pixels are too few"),
        (np.array([[5.0, 1.0]]), np.array([1]), "1 validation pixels are too few"),
        (np.full((40, 3), 2.0), np.arange(40) % 3, "do not show that a temperature helps"),
        (np.tile([[5.0, 1.0], [0.0, 2.0]], (50, 1)), np.arange(100) % 2, "all 100 validation pixels are c"),
    ],
    ids=["no pixel", "one pixel", "flat", "all right"],
)
def test_pixels_that_cannot_tell_leave_the_temperature_at_1(logits, truth, why):
    found = scale(logits, truth)
    assert (found.temperature, found.is_scaled) == (1, False)
    assert why in found.lack
    assert found.about == f"not calibrated: {found.lack}"


@settings(deadline=None)
@given(st.integers(0, 29), st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_fewer_than_thirty_pixels_never_scale(num_pixels, seed, factor):
    """Four pixels that happen to be correct once gave T = 0.09 and a calibration error of 36 %."""
    logits, truth = simulate(num_pixels, seed=seed)
    found = scale(factor * logits, truth)
    assert (found.temperature, found.num_pixels) == (1, num_pixels)
    assert "too few to fit a temperature, which takes 30" in found.lack


@settings(deadline=None)
@given(st.integers(30, 400), st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_pixels_that_are_all_correct_never_scale(num_pixels, seed, factor):
    logits, _ = simulate(num_pixels, seed=seed)
    assert scale(factor * logits, logits.argmax(axis=1)).temperature == 1


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(200, 600), st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.4, 2.5, 5]))
def test_a_known_temperature_is_recovered_within_its_sampling_error(num_pixels, seed, factor):
    logits, truth = simulate(num_pixels, seed=seed)
    found = scale(factor * logits, truth)
    assert found.is_scaled
    # At T = 1, the Fisher information of log T is the variance of the true class's logit over the classes.
    chances = softmax(logits, axis=1)
    variance = (chances * logits**2).sum(axis=1) - (chances * logits).sum(axis=1) ** 2
    assert abs(np.log(found.temperature / factor)) < 5 / np.sqrt(variance.sum())
    assert 0 < found.gain_low < found.gain < found.gain_high


def test_calibrated_logits_are_seldom_scaled_and_then_by_little():
    found = [scale(*simulate(200, seed=seed)) for seed in range(200)]
    assert np.mean([each.is_scaled for each in found]) < 0.05
    assert all(0.7 < each.temperature < 1.4 for each in found)


def test_the_gain_and_its_interval_are_those_of_a_t_test_on_pixels_left_out():
    logits, truth = simulate(100, seed=3)
    logits = 2 * logits
    found = scale(logits, truth, folds=np.arange(100) % 4)
    gains = np.empty(100)
    for pixel in range(100):
        others = np.arange(100) % 4 != pixel % 4
        temperature = fit_temperature(logits[others], truth[others])
        plain, scaled = softmax(logits[pixel]), softmax(logits[pixel] / temperature)
        gains[pixel] = np.log(scaled[truth[pixel]] / plain[truth[pixel]])
    interval = ttest_1samp(gains, 0).confidence_interval(0.95)
    assert found.gain == pytest.approx(gains.mean())
    assert (found.gain_low, found.gain_high) == pytest.approx(tuple(interval))


def test_copies_of_a_pixel_add_nothing_to_what_its_group_shows():
    logits, truth = simulate(60, seed=4)
    once = scale(3 * logits, truth)
    copies = scale(3 * np.repeat(logits, 25, axis=0), np.repeat(truth, 25), groups=np.repeat(range(60), 25))
    assert (copies.num_pixels, copies.num_groups) == (1500, 60)
    assert copies.gain_low == pytest.approx(once.gain_low)
    assert copies.temperature == pytest.approx(once.temperature, rel=1e-3)


def test_five_areas_are_too_few_however_many_pixels_they_have():
    logits, truth = simulate(5000)
    found = scale(3 * logits, truth, groups=np.arange(5000) % 5, source="cross-fit")
    assert found.temperature == 1
    assert found.lack == (
        "the 5,000 training pixels by cross-fitting lie in 5 separate areas, too few to show that a "
        "temperature helps; label pixels in 6 or more"
    )
    assert scale(3 * logits, truth, groups=np.arange(5000) % 6).temperature == pytest.approx(3, rel=0.1)


def test_predictions_no_better_than_chance_say_nothing_about_the_temperature():
    """The likeliest temperature would be the largest, which makes all classes equally probable."""
    logits, truth = simulate(900, seed=6)
    wrong = (truth + 1) % 5
    found = scale(5 * logits, np.where(np.arange(900) % 3 == 0, truth, wrong), source="cross-fit")
    assert found.gain_low > 0
    assert found.temperature == 1
    assert "are not shown to be predicted better than by chance" in found.lack


def test_a_gain_in_one_area_and_a_loss_in_the_others_is_not_shown():
    logits, truth = simulate(700, seed=5)
    area = np.arange(700) // 100
    logits[area == 0] *= 8  # overconfident in one area alone
    assert scale(logits, truth).is_scaled
    assert "do not show that a temperature helps" in scale(logits, truth, groups=area).lack


@settings(deadline=None)
@given(
    arrays(np.float64, (6, 4), elements=st.integers(-50, 50).map(float)),
    arrays(np.int64, 6, elements=st.integers(0, 3)),
)
def test_the_temperature_never_changes_the_class(logits, truth):
    temperature = fit_temperature(logits, truth)
    assert 0.05 <= temperature <= 20
    probabilities = to_probabilities(logits, temperature=temperature)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), logits.argmax(axis=1))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_a_hand_count_of_rejection():
    # 0.9 right · 0.8 right, wrong · 0.6 right · 0.5 wrong
    rejection = measure_rejection(np.array([0.5, 0.8, 0.9, 0.8, 0.6]), np.array([False, True, True, False, True]))
    assert rejection.coverage == pytest.approx([1 / 5, 3 / 5, 4 / 5, 1])
    assert rejection.accuracy == pytest.approx([1, 2 / 3, 3 / 4, 3 / 5])
    # every pixel contributes the error among those at least as certain
    assert rejection.aurc == pytest.approx((0 + 1 / 3 + 1 / 3 + 1 / 4 + 2 / 5) / 5)


@pytest.mark.parametrize(
    ("coverage", "accuracy"), [(0.01, 1), (0.2, 1), (0.21, 2 / 3), (0.6, 2 / 3), (0.7, 3 / 4), (1, 3 / 5)]
)
def test_the_accuracy_at_a_coverage_keeps_at_least_so_many(coverage, accuracy):
    rejection = measure_rejection(np.array([0.5, 0.8, 0.9, 0.8, 0.6]), np.array([False, True, True, False, True]))
    assert rejection.accuracy_at(coverage) == pytest.approx(accuracy)


@pytest.mark.parametrize("coverage", [0, -0.1, 1.1, float("nan")])
def test_a_coverage_outside_its_range_is_refused(coverage):
    with pytest.raises(ValueError, match=r"coverage = .*: not a fraction in \(0, 1\]"):
        measure_rejection(np.array([0.5]), np.array([True])).accuracy_at(coverage)


def test_the_errors_before_and_after_scaling_are_said_with_the_evidence():
    scaling = TemperatureScaling(0.6, "validation", 121, 121, gain=0.2, gain_low=-0.0004, gain_high=0.25)
    assert describe_calibration(0.13, 0.015, scaling=scaling) == (
        "Expected calibration error 13.00 %, and 1.50 % after temperature scaling (T = 0.60, fitted on 121 "
        "validation pixels; gain in log-likelihood +0.200 per pixel, 95 % interval −0.000 to +0.250)."
    )
    assert describe_calibration(0.13, 0.13, scaling=TemperatureScaling(lack="because; do this")) == (
        "The confidence is not calibrated: because; do this. Use it to rank pixels, not as a probability: "
        "its expected calibration error is 13.00 %."
    )


def test_a_picture_of_rejection_begins_where_one_pixel_moves_little():
    is_correct = np.arange(1000) > 0  # the most certain pixel alone is wrong
    rejection = measure_rejection(np.linspace(1, 0.5, 1000), is_correct)
    assert rejection.accuracy[0] == 0
    shown = rejection.steady
    assert (shown.coverage[0], shown.coverage[-1]) == pytest.approx((0.02, 1))
    assert shown.accuracy.min() >= 0.95
    few = measure_rejection(np.array([0.9, 0.5]), np.array([False, True]))
    assert few.steady.coverage.tolist() == few.coverage.tolist()


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_rejecting_the_wrong_pixels_first_never_lowers_the_accuracy(is_correct):
    right = np.array(is_correct)
    rejection = measure_rejection(np.where(right, 0.9, 0.4), right)
    assert (np.diff(rejection.accuracy) <= 0).all()
    if right.any():
        assert rejection.accuracy[0] == 1
        assert rejection.accuracy_at(right.mean()) == 1


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_rejection_does_not_depend_on_the_order_of_the_pixels(pixels, random):
    confidence, is_correct = map(np.array, zip(*pixels, strict=True))
    rejection = measure_rejection(confidence, is_correct)
    assert (np.diff(rejection.coverage, prepend=0) > 0).all()
    assert rejection.coverage[-1] == 1
    assert rejection.accuracy[-1] == pytest.approx(is_correct.mean())
    order = random.sample(range(len(pixels)), len(pixels))
    shuffled = measure_rejection(confidence[order], is_correct[order])
    assert shuffled.aurc == rejection.aurc
    by_pixel = [1 - is_correct[confidence >= level].mean() for level in confidence]
    assert rejection.aurc == pytest.approx(np.mean(by_pixel))


def test_confidence_that_says_nothing_scores_the_overall_error():
    is_correct = np.random.default_rng(0).random(500) < 0.8
    assert measure_rejection(np.full(500, 0.7), is_correct).aurc == pytest.approx(1 - is_correct.mean())


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_confidences_of_pixels_ranked_better_have_a_smaller_area(data):
    is_correct = np.array(data.draw(st.lists(st.booleans(), min_size=2, max_size=30)))
    assume(is_correct.any() and not is_correct.all())
    best = measure_rejection(is_correct.astype(float), is_correct).aurc
    worst = measure_rejection(1.0 - is_correct, is_correct).aurc
    assert best < worst
