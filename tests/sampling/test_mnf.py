"""The minimum noise fraction: against spectral's routines and hand computations."""

import tracemalloc

import numpy as np
import pytest
import scipy.io
import spectral
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from hsi_se.config.experiment import MnfReduction, PcaReduction
from hsi_se.errors import ConfigError, SceneError
from hsi_se.sampling.reduction import Reduction, fit_reduction
from tests.conftest import REAL_SCENES, needs_real_scenes


def mnf(**changes: object) -> MnfReduction:
    return MnfReduction.model_validate({"kind": "mnf", "components": 4, "fit_on": "scene"} | changes)


def make_cube(rows: int = 20, cols: int = 18, bands: int = 8, *, seed: int = 0) -> np.ndarray:
    """Three smooth signals in noise whose variance differs by band."""
    draw = np.random.default_rng(seed)
    row, col = np.mgrid[:rows, :cols] / max(rows, cols)
    signals = np.stack([np.sin(5 * row), np.cos(7 * col), row * col], axis=-1)
    noise = draw.normal(size=(rows, cols, bands)) * np.linspace(0.02, 0.4, bands)
    return 100 + 10 * (signals @ draw.normal(size=(3, bands)) + noise)


def every_pixel(cube: np.ndarray) -> np.ndarray:
    return np.argwhere(np.ones(cube.shape[:2], bool))


def fit(cube: np.ndarray, *, train: np.ndarray | None = None, nodata=None, **changes: object) -> Reduction:
    train = every_pixel(cube)[::5] if train is None else np.asarray(train)
    return fit_reduction(cube, mnf(**changes), train_pixels=train, nodata=nodata)


def differences_by_hand(cube: np.ndarray, *, valid: np.ndarray, near: np.ndarray) -> np.ndarray:
    """One row per pair of valid neighbours, to the right and below, of which one is `near`."""
    found = []
    for row in range(cube.shape[0]):
        for col in range(cube.shape[1]):
            for other in ((row, col + 1), (row + 1, col)):
                is_inside = other[0] < cube.shape[0] and other[1] < cube.shape[1]
                if is_inside and valid[row, col] and valid[other] and (near[row, col] or near[other]):
                    found.append(cube[row, col].astype(float) - cube[other].astype(float))
    return np.array(found)


def reduce(found: Reduction, cube: np.ndarray) -> np.ndarray:
    """The components in standard deviations of their noise, as spectral has them."""
    return found.apply(cube) * found.scale


def noise_of(components: np.ndarray) -> np.ndarray:
    """The covariance of the noise between components `(rows, cols, K)`, from all differences."""
    everywhere = np.ones(components.shape[:2], bool)
    return np.cov(differences_by_hand(components, valid=everywhere, near=everywhere).T) / 2


def align(components: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The components with the signs of the expected ones."""
    return components * np.sign((components * expected).sum(axis=(0, 1)))


# ------------------------------------------------------------------------------- the whole scene


@pytest.mark.parametrize("whiten", [True, False])
def test_the_whole_scene_gives_the_components_of_spectral(whiten):
    cube = make_cube()
    noise = spectral.noise_from_diffs(cube)
    noise.cov = np.cov(np.concatenate([np.diff(cube, axis=axis).reshape(-1, 8) for axis in (0, 1)]).T) / 2
    expected = spectral.mnf(spectral.calc_stats(cube), noise).reduce(cube, num=8)
    found = reduce(fit(cube, components=8, whiten=whiten), cube)
    np.testing.assert_allclose(align(found, expected), expected, rtol=1e-5, atol=1e-5)


def test_the_noise_of_the_components_has_unit_variance_and_they_fall_in_signal_to_noise_ratio():
    cube = make_cube()
    components = reduce(fit(cube, components=8), cube)
    np.testing.assert_allclose(noise_of(components), np.eye(8), atol=1e-5)
    variances = components.reshape(-1, 8).var(axis=0, ddof=1)  # 1 + the ratio, as the noise has unit variance
    assert (np.diff(variances) < 0).all()
    assert variances[0] > 10 * variances[4]
    np.testing.assert_allclose(np.corrcoef(components.reshape(-1, 8).T), np.eye(8), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 50))
def test_no_invertible_map_of_the_bands_changes_the_components(seed, spread):
    draw = np.random.default_rng(seed)
    one, other = (np.linalg.qr(draw.normal(size=(8, 8)))[0] for _ in range(2))
    mapped = make_cube() @ (one * np.geomspace(1, spread, 8) @ other) + draw.normal(size=8) * 100
    expected = reduce(fit(make_cube()), make_cube())
    np.testing.assert_allclose(align(reduce(fit(mapped), mapped), expected), expected, atol=1e-4)


def test_a_map_of_the_bands_changes_principal_components():
    cube, units = make_cube(), np.arange(1, 9) ** 2
    settings_ = PcaReduction(kind="pca", components=4, fit_on="scene")
    one, other = (fit_reduction(each, settings_, train_pixels=every_pixel(cube)) for each in (cube, cube * units))
    expected = one.apply(cube)
    assert not np.allclose(align(other.apply(cube * units), expected), expected, atol=0.5)


def test_bands_of_units_a_billion_apart_give_the_same_components():
    cube = make_cube()
    units = np.geomspace(1e-6, 1e6, 8)
    expected = fit(cube, components=8).apply(cube)
    np.testing.assert_allclose(fit(cube * units, components=8).apply(cube * units), expected, rtol=1e-4, atol=1e-5)


def test_every_component_has_its_largest_standardised_loading_positive():
    cube = make_cube()
    deviations = np.sqrt(noise_of(cube).diagonal() + cube.reshape(-1, 8).var(axis=0, ddof=1))
    components = fit(cube, components=8).components * deviations
    assert (components.max(axis=1) == np.abs(components).max(axis=1)).all()
    np.testing.assert_array_equal(fit(make_cube()).components, fit(make_cube().copy()).components)


@pytest.mark.parametrize("whiten", [True, False])
def test_components_have_unit_variance_or_all_are_divided_by_the_deviation_of_the_first(whiten):
    cube = make_cube()
    found = fit(cube, components=3, whiten=whiten).apply(cube).reshape(-1, 3).astype(float).std(axis=0, ddof=1)
    deviations = reduce(fit(cube, components=3), cube).reshape(-1, 3).std(axis=0, ddof=1)
    np.testing.assert_allclose(found, 1 if whiten else deviations / deviations[0], rtol=1e-5)
    assert deviations[2] > 1


def test_by_default_the_noise_is_equal_in_all_components():
    cube = make_cube()
    noise = noise_of(fit(cube, components=5).apply(cube))
    np.testing.assert_allclose(noise / noise[0, 0], np.eye(5), atol=1e-4)


def test_a_component_that_varies_less_than_its_noise_is_not_raised_above_it():
    cube = make_cube()
    train = every_pixel(cube)[:140:10]  # few pixels, with 14 spectra of little variance in some direction
    found = fit(cube, train=train, fit_on="train", components=8, whiten=True)
    assert found.scale.min() == 1


# ------------------------------------------------------------------------------- which pixels


@pytest.mark.parametrize("fit_on", ["train", "scene"])
def test_the_fit_is_that_of_the_pairs_found_by_hand(fit_on):
    cube = make_cube(12, 11, 5)
    nodata = np.zeros((12, 11), bool)
    nodata[3, 2:6] = nodata[8:, 10] = nodata[0, 0] = True
    train = np.argwhere(~nodata)[::4]
    near = ~nodata if fit_on == "scene" else np.zeros_like(nodata)
    near[train[:, 0], train[:, 1]] = True
    noise = np.cov(differences_by_hand(cube, valid=~nodata, near=near).T) / 2
    signal = np.cov(cube[near].T)
    found = fit(cube, train=train, nodata=nodata, fit_on=fit_on, components=5)
    np.testing.assert_allclose(found.mean, cube[near].mean(axis=0))
    np.testing.assert_allclose(found.components @ noise @ found.components.T, np.eye(5), atol=1e-9)
    ratios = np.sort(np.linalg.eigvals(np.linalg.solve(noise, signal)).real)[::-1]
    np.testing.assert_allclose(found.components @ signal @ found.components.T, np.diag(ratios), atol=1e-9 * ratios[0])


@pytest.mark.parametrize("fit_on", ["train", "scene"])
@pytest.mark.parametrize("fill", [-9999.0, np.nan, 1e30])
def test_a_border_without_data_does_not_change_the_fit(fit_on, fill):
    cube = make_cube()
    bordered = np.pad(cube, ((2, 1), (1, 3), (0, 0)), constant_values=fill)
    nodata = np.pad(np.zeros(cube.shape[:2], bool), ((2, 1), (1, 3)), constant_values=True)
    plain = fit(cube, fit_on=fit_on)
    found = fit(bordered, train=np.add(every_pixel(cube)[::5], (2, 1)), nodata=nodata, fit_on=fit_on)
    np.testing.assert_array_equal(found.mean, plain.mean)
    np.testing.assert_array_equal(found.components, plain.components)


def test_fitted_on_the_training_pixels_it_sees_their_direct_neighbours_and_no_other_pixel():
    cube, train = make_cube(), np.array([[row, col] for row in range(2, 18, 4) for col in range(2, 16, 4)])
    plain = fit(cube, train=train, fit_on="train")
    seen = np.zeros(cube.shape[:2], bool)
    for step in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
        seen[train[:, 0] + step[0], train[:, 1] + step[1]] = True
    changed = np.where(seen[..., None], cube, 0)
    np.testing.assert_array_equal(fit(changed, train=train, fit_on="train").components, plain.components)
    for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        changed = cube.copy()
        changed[train[3, 0] + step[0], train[3, 1] + step[1]] += 5
        moved = fit(changed, train=train, fit_on="train")
        assert not np.allclose(moved.components, plain.components)
        np.testing.assert_array_equal(moved.mean, plain.mean)  # the mean is of the training pixels alone


def test_chunks_give_the_statistics_of_all_pixels_at_once():
    cube = make_cube(90, 110, 6) + np.linspace(0, 500, 90)[:, None, None]  # three chunks of pixels
    found = fit(cube, components=6)
    everything = np.concatenate([np.diff(cube, axis=axis).reshape(-1, 6) for axis in (0, 1)])
    np.testing.assert_allclose(found.mean, cube.mean(axis=(0, 1)))
    noise = np.cov(everything.T) / 2
    np.testing.assert_allclose(found.components @ noise @ found.components.T, np.eye(6), atol=1e-8)


def test_a_large_cube_is_not_copied_whole_as_float64():
    cube = np.random.default_rng(0).integers(0, 4000, (300, 300, 120), np.uint16)
    tracemalloc.start()
    fit(cube)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.6 * 8 * cube.size


# ------------------------------------------------------------------------------- odd cubes


def test_differences_of_unsigned_integers_do_not_wrap():
    cube = np.round(make_cube()).clip(0).astype(np.uint16)
    np.testing.assert_array_equal(fit(cube).components, fit(cube.astype(float)).components)
    assert fit(cube.astype(np.uint8)).components.shape == (4, 8)


@pytest.mark.parametrize("shape", [(1, 60), (60, 1)])
@pytest.mark.parametrize("fit_on", ["train", "scene"])
def test_a_cube_of_one_row_or_column_has_neighbours_in_one_direction(shape, fit_on):
    cube = make_cube(*shape)
    found = fit(cube, train=every_pixel(cube), fit_on=fit_on)
    noise = spectral.noise_from_diffs(cube, direction="right" if shape[0] == 1 else "lower")
    expected = spectral.mnf(spectral.calc_stats(cube), noise).reduce(cube, num=4)
    expected = expected.reshape(*shape, 4)  # spectral drops the axis of one
    np.testing.assert_allclose(align(reduce(found, cube), expected), expected, atol=2e-5)


def test_one_band_is_divided_by_its_noise():
    cube = make_cube()[..., :1]
    noise = noise_of(cube)
    assert fit(cube, components=1).components == pytest.approx(np.array([[noise.item() ** -0.5]]))


@pytest.mark.parametrize("fit_on", ["train", "scene"])
def test_constant_and_repeated_bands_change_no_component(fit_on):
    cube = make_cube()
    empty, flat = np.zeros((20, 18, 1)), np.full((20, 18, 1), 0.1)
    wider = np.concatenate([cube[..., :3], empty, flat, cube[..., :2], cube, cube[..., :1] - cube[..., 4:5]], axis=2)
    expected = fit(cube, components=8, fit_on=fit_on).apply(cube)
    found = fit(wider, components=8, fit_on=fit_on)
    np.testing.assert_allclose(align(found.apply(wider), expected), expected, rtol=1e-4, atol=1e-3)
    assert not found.components[:, 3:5].any()
    with pytest.raises(ConfigError) as caught:
        fit(wider, components=9, fit_on=fit_on)
    assert str(caught.value) == (
        "reduction.components = 9: only 8 of 16 bands are neither constant nor a combination of others; use at most 8"
    )


def test_a_band_without_noise_comes_first_and_stays_finite():
    cube = make_cube()
    cube[..., 5] = np.mgrid[:20, :18].sum(axis=0)  # the same difference to every neighbour
    found = fit(cube, components=8)
    assert np.isfinite(found.components).all()
    first = found.apply(cube)[..., 0]
    assert np.corrcoef(first.ravel(), cube[..., 5].ravel())[0, 1] == pytest.approx(1, abs=1e-6)


def test_a_scene_without_any_noise_is_reduced_too():
    ramp = np.arange(40.0)[None, :, None] * np.arange(1.0, 4.0)
    found = fit(ramp, components=1, train=every_pixel(ramp)).apply(ramp)
    assert np.isfinite(found).all()
    assert np.corrcoef(found.ravel(), ramp[..., 0].ravel())[0, 1] == pytest.approx(1)


# ------------------------------------------------------------------------------- what is refused


def test_too_few_pairs_of_neighbours_are_refused_with_remedies_that_work():
    cube, train = make_cube(), np.array([[4, 4], [10, 10]])
    with pytest.raises(ConfigError) as caught:
        fit(cube, train=train, fit_on="train", components=1)
    assert str(caught.value) == (
        "reduction.kind = mnf: 8 pairs of neighbouring pixels are too few for the noise of 8 bands; "
        "write reduction.fit_on: scene, or reduction.kind: pca"
    )
    assert fit(cube, train=train, fit_on="scene", components=1).num_components == 1
    pca = PcaReduction(kind="pca", components=1, fit_on="train")
    assert fit_reduction(cube, pca, train_pixels=train).num_components == 1


@pytest.mark.parametrize("fit_on", ["train", "scene"])
def test_isolated_pixels_have_no_noise_to_measure(fit_on):
    cube = make_cube()
    nodata = np.mgrid[:20, :18].sum(axis=0) % 2 == 1  # a chessboard
    with pytest.raises(ConfigError, match=r"mnf: 0 pairs of .* the noise of 8 bands; write reduction.kind: pca$"):
        fit(cube, train=np.argwhere(~nodata), nodata=nodata, fit_on=fit_on)


@pytest.mark.parametrize("fit_on", ["train", "scene"])
def test_more_components_than_bands_are_refused(fit_on):
    cube = make_cube()
    with pytest.raises(ConfigError) as caught:
        fit(cube, components=9, train=every_pixel(cube), fit_on=fit_on)
    assert str(caught.value) == (
        "reduction.components = 9: the scene has 8 bands and the fit 360 pixels; use at most 8"
    )


def test_more_components_than_training_pixels_allow_are_refused():
    cube = make_cube()
    train = every_pixel(cube)[::90]
    remedies = r"8 bands and the fit 4 pixels; write reduction\.fit_on: scene, or use at most 3$"
    with pytest.raises(ConfigError, match=remedies):
        fit(cube, train=train, fit_on="train")
    assert fit(cube, train=train, fit_on="train", components=3).num_components == 3


def test_training_pixels_of_one_spectrum_are_refused():
    with pytest.raises(SceneError, match="have the same spectrum"):
        fit(np.ones((20, 18, 8)))


# ------------------------------------------------------------------------------- the real scene


@needs_real_scenes
def test_on_indian_pines_single_pixels_are_classified_far_better_than_by_principal_components():
    folder = REAL_SCENES / "indian_pines"
    cube = scipy.io.loadmat(folder / "Indian_pines_corrected.mat")["indian_pines_corrected"]
    labels = scipy.io.loadmat(folder / "Indian_pines_gt.mat")["indian_pines_gt"]
    pixels = np.argwhere(labels > 0)
    known, test = np.split(np.random.default_rng(0).permutation(pixels), [len(pixels) // 10])

    def measure(settings) -> float:
        components = fit_reduction(cube, settings, train_pixels=known).apply(cube)
        at_known, at_test = (components[pixels[:, 0], pixels[:, 1]] for pixels in (known, test))
        classifier = LinearDiscriminantAnalysis().fit(at_known, labels[known[:, 0], known[:, 1]])
        return classifier.score(at_test, labels[test[:, 0], test[:, 1]])

    for fit_on in ("train", "scene"):
        pca = measure(PcaReduction(kind="pca", components=20, fit_on=fit_on))
        assert measure(mnf(components=20, fit_on=fit_on)) > pca + 0.05
