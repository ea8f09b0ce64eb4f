"""Splits, reductions and patches, against plain numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from hsi_se import make_split
from hsi_se.config.experiment import NoReduction, PcaReduction
from hsi_se.config.split import RandomSplit
from hsi_se.errors import ConfigError, SceneError, SplitError
from hsi_se.sampling.patches import NUM_SYMMETRIES, PatchDataset, pad_cube, to_targets
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth

# ---------------------------------------------------------------------------------------- splits


def scene_of(labels: np.ndarray) -> GroundTruth:
    labels = np.asarray(labels, dtype=np.int32)
    names = {int(label): f"class {label}" for label in np.unique(labels) if label}
    return GroundTruth("test", labels, names)


def random_split(train: object, validation: float = 0.0, seed: int | None = None) -> RandomSplit:
    return RandomSplit.model_validate({"kind": "random", "train": train, "validation": validation, "seed": seed})


def count_labels(scene: GroundTruth, pixels: np.ndarray) -> dict[int, int]:
    labels, counts = np.unique(scene.labels[pixels[:, 0], pixels[:, 1]], return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


label_maps = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).choice([0, 0, 1, 2, 5, 9], size=(12, 11))
)


@settings(max_examples=50, deadline=None)
@given(label_maps, st.floats(0.01, 0.99), st.floats(0, 0.9), st.integers(0, 5))
def test_the_sides_partition_the_labelled_pixels(labels, train, validation, seed):
    scene = scene_of(labels)
    split = make_split(scene, random_split(train, validation), seed=seed)
    everything = np.concatenate([split.train, split.val, split.test])
    assert {tuple(pixel) for pixel in everything} == {tuple(pixel) for pixel in np.argwhere(labels > 0)}
    assert len(everything) == (labels > 0).sum()
    assert set(count_labels(scene, split.train)) == set(scene.class_ids.tolist())
    assert set(count_labels(scene, split.test)) == set(scene.class_ids.tolist())


def test_a_fraction_is_taken_of_every_class():
    labels = np.repeat([1, 2, 3, 7], [100, 200, 40, 60]).reshape(20, 20)
    split = make_split(scene_of(labels), random_split(0.1))
    assert count_labels(scene_of(labels), split.train) == {1: 10, 2: 20, 3: 4, 7: 6}


def test_a_count_is_taken_of_every_class():
    labels = np.repeat([1, 2, 3, 7], [100, 200, 40, 60]).reshape(20, 20)
    split = make_split(scene_of(labels), random_split({"per_class": 39}))
    assert count_labels(scene_of(labels), split.train) == {1: 39, 2: 39, 3: 39, 7: 39}
    assert count_labels(scene_of(labels), split.test) == {1: 61, 2: 161, 3: 1, 7: 21}


def test_validation_is_taken_from_the_training_side():
    labels = np.repeat([1, 2, 3, 7], [100, 200, 40, 60]).reshape(20, 20)
    without = make_split(scene_of(labels), random_split(0.5, 0.0), seed=4)
    split = make_split(scene_of(labels), random_split(0.5, 0.2), seed=4)
    assert count_labels(scene_of(labels), split.val) == {1: 10, 2: 20, 3: 4, 7: 6}
    assert np.array_equal(split.test, without.test)
    assert len(split.train) + len(split.val) == len(without.train)


def test_a_tiny_class_keeps_one_training_pixel_and_says_so():
    labels = np.repeat([1, 2], [396, 4]).reshape(20, 20)
    split = make_split(scene_of(labels), random_split(0.1, 0.5))
    assert count_labels(scene_of(labels), split.train)[2] == 1
    assert "class 2" in split.notes[0]
    assert "class 1" not in split.notes[0]


def test_a_class_of_a_single_pixel_trains_and_says_that_none_is_tested():
    labels = np.repeat([1, 2], [399, 1]).reshape(20, 20)
    split = make_split(scene_of(labels), random_split(0.1))
    assert count_labels(scene_of(labels), split.train)[2] == 1
    assert "none is left for testing" in split.notes[-1]


def test_a_count_that_leaves_a_class_untested_is_refused_with_the_largest_that_does_not():
    labels = np.repeat([1, 2], [380, 20]).reshape(20, 20)
    with pytest.raises(SplitError, match=r"per_class = 20: class 2 .* 20 labelled pixels.*at most 19"):
        make_split(scene_of(labels), random_split({"per_class": 20}))


def test_the_same_seed_draws_the_same_pixels(small_scene):
    one = make_split(small_scene, random_split(0.2, 0.1), seed=1)
    same = make_split(small_scene, random_split(0.2, 0.1), seed=1)
    other = make_split(small_scene, random_split(0.2, 0.1), seed=2)
    assert one.digest == same.digest
    assert np.array_equal(one.train, same.train)
    assert one.digest != other.digest


def test_the_splits_own_seed_wins_over_the_experiments(small_scene):
    drawn = {make_split(small_scene, random_split(0.2, seed=5), seed=seed).digest for seed in range(3)}
    assert drawn == {make_split(small_scene, random_split(0.2), seed=5).digest}


def test_sides_that_share_a_pixel_are_refused():
    one, both = np.array([[0, 0]]), np.array([[0, 0], [3, 4]])
    with pytest.raises(SplitError, match="1 pixels are in more than one set, the first at row 0, col 0"):
        Split(train=one, val=np.empty((0, 2), np.int64), test=both)


# ------------------------------------------------------------------------------------- reductions


def pca(**changes: object) -> PcaReduction:
    return PcaReduction.model_validate({"kind": "pca", "components": 5, "fit_on": "train", **changes})


@pytest.mark.parametrize("fit_on", ["train", "scene"])
@pytest.mark.parametrize("whiten", [True, False])
def test_pca_equals_scikit_learns(small_scene, fit_on, whiten):
    cube = small_scene.cube
    train = make_split(small_scene, random_split(0.3)).train
    components = fit_reduction(cube, pca(fit_on=fit_on, whiten=whiten), train_pixels=train).apply(cube)

    samples = cube[train[:, 0], train[:, 1]] if fit_on == "train" else cube.reshape(-1, 20)
    fitted = PCA(5, whiten=whiten, svd_solver="full").fit(samples.astype(float))
    expected = fitted.transform(cube.reshape(-1, 20).astype(float)).reshape(*cube.shape[:2], 5)
    if not whiten:
        expected /= np.sqrt(fitted.explained_variance_[0])
    signs = np.sign((components * expected).sum(axis=(0, 1)))  # a component's sign is arbitrary
    np.testing.assert_allclose(components * signs, expected, atol=2e-3)


def test_whitened_components_have_unit_variance_where_they_were_fitted(small_scene):
    components = fit_reduction(small_scene.cube, pca(fit_on="scene"), train_pixels=np.zeros((1, 2), np.int64)).apply(
        small_scene.cube
    )
    np.testing.assert_allclose(components.reshape(-1, 5).std(axis=0, ddof=1), 1, rtol=1e-4)
    np.testing.assert_allclose(components.reshape(-1, 5).mean(axis=0), 0, atol=1e-4)


def test_a_reduction_fitted_on_training_pixels_does_not_see_the_others(small_scene):
    train = make_split(small_scene, random_split(0.3)).train
    changed = small_scene.cube.copy()
    mask = np.ones(changed.shape[:2], bool)
    mask[train[:, 0], train[:, 1]] = False
    changed[mask] = 0
    for settings_ in (pca(), NoReduction(kind="none")):
        one = fit_reduction(small_scene.cube, settings_, train_pixels=train)
        two = fit_reduction(changed, settings_, train_pixels=train)
        np.testing.assert_array_equal(one.mean, two.mean)
        np.testing.assert_array_equal(one.components, two.components)
    seen = fit_reduction(changed, pca(fit_on="scene"), train_pixels=train)
    assert not np.allclose(seen.mean, one.mean)


def test_no_reduction_standardizes_over_the_training_pixels_or_keeps_the_bands(small_scene):
    train = make_split(small_scene, random_split(0.3)).train
    cube = small_scene.cube
    scores = fit_reduction(cube, NoReduction(kind="none"), train_pixels=train).apply(cube)
    np.testing.assert_allclose(scores[train[:, 0], train[:, 1]].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scores[train[:, 0], train[:, 1]].std(axis=0), 1, atol=1e-4)
    plain = fit_reduction(cube, NoReduction(kind="none", standardize=False), train_pixels=train).apply(cube)
    np.testing.assert_allclose(plain, cube)


def test_a_constant_band_stays_finite():
    cube = np.zeros((4, 4, 3), np.uint16)
    cube[..., 0] = np.arange(16).reshape(4, 4)
    pixels = np.argwhere(np.ones((4, 4), bool))
    for reduction in (NoReduction(kind="none"), pca(components=3)):
        assert np.isfinite(fit_reduction(cube, reduction, train_pixels=pixels).apply(cube)).all()


def test_a_new_scene_is_reduced_with_the_training_statistics(small_scene):
    train = make_split(small_scene, random_split(0.3)).train
    reduction = fit_reduction(small_scene.cube, pca(), train_pixels=train)
    brighter = small_scene.cube[:5, :7].astype(float) + 100
    shift = 100 * reduction.components.sum(axis=1) / reduction.scale
    expected = reduction.apply(small_scene.cube)[:5, :7] + shift
    np.testing.assert_allclose(reduction.apply(brighter), expected, rtol=1e-3, atol=1e-3)


def test_another_band_count_is_refused(small_scene):
    train = make_split(small_scene, random_split(0.3)).train
    reduction = fit_reduction(small_scene.cube, pca(), train_pixels=train)
    with pytest.raises(SceneError, match="has 19 bands, but the reduction was fitted on 20"):
        reduction.apply(small_scene.cube[..., :19])


@pytest.mark.parametrize(("components", "num_pixels", "most"), [(21, 400, 20), (15, 12, 11)])
def test_more_components_than_bands_or_pixels_are_refused(small_scene, components, num_pixels, most):
    pixels = np.argwhere(small_scene.labels >= 0)[:num_pixels]
    with pytest.raises(ConfigError, match=rf"components = {components}: .*at most {most}"):
        fit_reduction(small_scene.cube, pca(components=components), train_pixels=pixels)


# ---------------------------------------------------------------------------------------- patches


def every_pixel(cube: np.ndarray) -> np.ndarray:
    return np.argwhere(np.ones(cube.shape[:2], dtype=bool))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 7), st.integers(1, 7), st.integers(1, 4), st.sampled_from([1, 3, 5, 9]),
    st.sampled_from(["zero", "reflect"]),
)  # fmt: skip
def test_a_patch_is_the_window_that_plain_numpy_cuts(rows, cols, bands, size, padding):
    cube = np.random.default_rng(0).normal(size=(rows, cols, bands)).astype(np.float32)
    patches = PatchDataset(pad_cube(cube, patch_size=size, padding=padding), every_pixel(cube), patch_size=size)
    gathered = patches.gather(torch.arange(len(patches)))
    assert gathered.shape == (rows * cols, 1, bands, size, size)

    def fold(index: int, length: int) -> int:
        """Mirror an index into 0..length-1 without repeating the edge."""
        period = max(2 * (length - 1), 1)
        index = abs(index) % period
        return min(index, period - index)

    margin = size // 2
    for position, (row, col) in enumerate(every_pixel(cube)):
        for i in range(size):
            for j in range(size):
                y, x = row + i - margin, col + j - margin
                inside = 0 <= y < rows and 0 <= x < cols
                expected = np.zeros(bands) if padding == "zero" and not inside else cube[fold(y, rows), fold(x, cols)]
                np.testing.assert_array_equal(gathered[position, 0, :, i, j], expected)


def test_corner_pixel_keeps_its_patch():
    cube = np.arange(2 * 3 * 1, dtype=np.float32).reshape(2, 3, 1)
    patches = PatchDataset(pad_cube(cube, patch_size=3, padding="zero"), np.array([[0, 0], [1, 2]]), patch_size=3)
    first, last = patches.gather(torch.tensor([0, 1]))[:, 0, 0]
    assert first.tolist() == [[0, 0, 0], [0, 0, 1], [0, 3, 4]]
    assert last.tolist() == [[1, 2, 0], [4, 5, 0], [0, 0, 0]]


def test_a_patch_is_a_view_on_the_padded_cube():
    cube = np.random.default_rng(0).normal(size=(6, 7, 3)).astype(np.float32)
    padded = pad_cube(cube, patch_size=5, padding="reflect")
    patches = PatchDataset(padded, every_pixel(cube), patch_size=5)
    for position in (0, 17, len(patches) - 1):
        assert patches[position].untyped_storage().data_ptr() == padded.untyped_storage().data_ptr()
        assert torch.equal(patches[position], patches.gather(torch.tensor([position]))[0, 0])


def test_the_eight_symmetries_are_those_of_the_square():
    cube = np.random.default_rng(0).normal(size=(6, 7, 2)).astype(np.float32)
    patches = PatchDataset(pad_cube(cube, patch_size=5, padding="reflect"), every_pixel(cube), patch_size=5)
    index = torch.full((NUM_SYMMETRIES,), 16)
    turned = patches.gather(index, symmetries=torch.arange(NUM_SYMMETRIES))[:, 0]
    plain = patches[16].numpy()
    square = [np.rot90(side, k, axes=(1, 2)) for side in (plain, plain.transpose(0, 2, 1)) for k in range(4)]
    assert len({patch.numpy().tobytes() for patch in turned}) == NUM_SYMMETRIES
    assert {patch.numpy().tobytes() for patch in turned} == {patch.tobytes() for patch in square}
    np.testing.assert_array_equal(turned[0], plain)


def test_a_shifted_patch_is_that_of_another_pixel_and_stays_in_the_scene():
    cube = np.random.default_rng(0).normal(size=(6, 7, 2)).astype(np.float32)
    pixels = every_pixel(cube)
    patches = PatchDataset(pad_cube(cube, patch_size=5, padding="reflect"), pixels, patch_size=5)
    index = torch.arange(len(pixels))
    for shift in ([0, 0], [2, -1], [-3, 4], [9, 9]):
        moved = np.clip(pixels + shift, 0, [5, 6])
        expected = patches.gather(torch.from_numpy(moved[:, 0] * 7 + moved[:, 1]))
        shifts = torch.tensor(shift).expand(len(pixels), 2)
        assert torch.equal(patches.gather(index, shifts=shifts), expected)


def test_gapped_labels_become_consecutive_classes_and_nothing_else():
    labels = np.array([[0, 10, 1], [14, 10, 12]], dtype=np.int32)
    pixels = np.argwhere(labels > 0)
    targets = to_targets(labels, pixels, np.array([1, 10, 12, 14], np.int32))
    assert targets.tolist() == [1, 0, 3, 1, 2]
