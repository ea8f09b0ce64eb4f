"""Spatial cross-validation: what each fold tests, trains on and leaves out."""

import re

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from hsi_se.config.split import FoldsSplit
from hsi_se.errors import SceneError, SplitError
from hsi_se.evaluation.audit import audit_leakage
from hsi_se.sampling.masks import write_partition
from hsi_se.sampling.spatial_folds import deal
from hsi_se.sampling.splits import Split, make_split, number_pixels
from hsi_se.scene.loading import load_ground_truth
from hsi_se.scene.scene import GroundTruth
from hsi_se.scene.synthetic import make_synthetic_scene
from tests.conftest import REAL_SCENES, needs_real_scenes


def make_truth(labels: np.ndarray) -> GroundTruth:
    labels = labels.astype(np.int32)
    return GroundTruth("test", labels, {label: f"class {label}" for label in np.unique(labels[labels > 0]).tolist()})


def make_folds(truth: GroundTruth, *, seed: int = 0, **options: object) -> list[Split]:
    settings = FoldsSplit.model_validate({"kind": "folds", **options})
    numbers = range(1, settings.folds + 1)
    return [make_split(truth, settings.model_copy(update={"fold": number}), seed=seed) for number in numbers]


def list_labels(truth: GroundTruth, pixels: np.ndarray) -> np.ndarray:
    return truth.labels[pixels[:, 0], pixels[:, 1]]


@runs(max_examples=60, deadline=None)
@given(
    side=st.integers(12, 30),
    num_classes=st.integers(1, 5),
    share=st.floats(0.2, 1),
    by=st.sampled_from(["blocks", "fields"]),
    num_folds=st.integers(2, 6),
    block_size=st.integers(1, 12),
    buffer=st.integers(0, 6),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_labelled_pixel_is_tested_once_away_from_the_training_pixels(
    side, num_classes, share, by, num_folds, block_size, buffer, seed
):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, num_classes + 1, (-(-side // 4), -(-side // 4)))
    labels = np.kron(coarse, np.ones((4, 4), int))[:side, :side] * (rng.random((side, side)) < share)
    truth = make_truth(labels)
    size = {"block_size": block_size} if by == "blocks" else {}
    try:
        folds = make_folds(truth, seed=seed, by=by, folds=num_folds, buffer=buffer, **size)
    except SplitError as error:
        if not re.match(r"split.folds = \d: only |split.buffer = \d: leaves no training pixels in fold ", str(error)):
            raise
        return
    tested, groups = np.zeros(labels.shape, int), {}
    for number, fold in enumerate(folds):
        tested[tuple(fold.test.T)] += 1
        train = fold.training_side
        assert cdist(fold.test, train, "chebyshev").min() >= max(buffer, 1)
        near = cdist(np.concatenate([fold.buffer, fold.test]), fold.test, "chebyshev").min(axis=1)
        assert (near < max(buffer, 1)).all(), "nothing is left out without need"
        assert len(train) + len(fold.test) + len(fold.buffer) == (labels > 0).sum()
        lost = np.setdiff1d(list_labels(truth, fold.test), list_labels(truth, train))
        notes = " ".join(fold.notes)
        for label in lost.tolist():
            assert f"class {label} ({(list_labels(truth, fold.test) == label).sum()})" in notes
        assert bool(fold.notes) == bool(len(lost))
        assert len(fold.groups) == len(fold.test)
        for group in np.unique(fold.groups).tolist():
            assert groups.setdefault(group, number) == number, "a group is tested as a whole"
    assert (tested == (labels > 0)).all()


def test_no_patch_of_a_fold_contains_a_training_pixel_at_the_default_buffer(tiny_config):
    truth = make_synthetic_scene(seed=0, rows=72, cols=72, bands=4)
    for smoothing in (None, {"spatial": 1, "range": 0.3}):
        prediction = tiny_config.prediction.model_validate({"smoothing": smoothing})
        split = {"kind": "folds", "by": "blocks", "block_size": 16, "folds": 3}
        dump = tiny_config.model_dump() | {"split": split, "prediction": prediction.model_dump()}
        config = type(tiny_config).model_validate(dump)
        assert config.split.buffer == 9 // 2 + 1 + (2 if smoothing else 0)
        for fold in config.list_folds():
            split = make_split(truth, fold.split, seed=1)
            audit = audit_leakage(split, shape=truth.shape, patch_size=config.window_size, reduction_saw_test=False)
            assert audit.test_patches_with_train_pixels == 0
            assert audit.min_distance >= config.split.buffer


@pytest.fixture(scope="module")
def farm() -> GroundTruth:
    return make_synthetic_scene(seed=1, rows=90, cols=80, bands=4)


@pytest.mark.parametrize("by", ["blocks", "fields"])
def test_classes_are_spread_over_the_folds_and_each_seed_draws_others(farm, by):
    draws = [make_folds(farm, seed=seed, by=by, buffer=3) for seed in range(3)]
    maps = [number_pixels(draw, farm.shape) for draw in draws]
    for draw, fold_of in zip(draws, maps, strict=True):
        sizes = [len(fold.test) for fold in draw]
        assert max(sizes) < 2 * min(sizes)
        for label in farm.class_ids:
            groups = {number for fold in draw for number in fold.groups[list_labels(farm, fold.test) == label].tolist()}
            assert len(np.unique(fold_of[farm.labels == label])) >= min(5, len(groups)) - 1
    pairs = [(maps[0] == other)[farm.labels > 0].mean() for other in maps[1:]]
    assert max(pairs) < 0.6


def test_a_dealt_group_goes_to_the_fold_that_has_least_of_its_classes():
    groups = np.repeat([10, 20, 30, 40], 5)
    classes = np.repeat([0, 0, 1, 1], 5)
    for seed in range(5):
        fold = deal(groups, classes, num_folds=2, rng=np.random.default_rng(seed))
        assert {*fold[:10:5].tolist()} == {*fold[10::5].tolist()} == {0, 1}
    alone = deal(np.arange(3), np.zeros(3, int), num_folds=3, rng=np.random.default_rng(0))
    assert sorted(alone.tolist()) == [0, 1, 2]


@needs_real_scenes
def test_the_folds_of_indian_pines_are_alike_in_size_and_lose_few_classes():
    truth = load_ground_truth("indian-pines", REAL_SCENES)
    for seed in range(3):
        folds = make_folds(truth, seed=seed, by="blocks", block_size=16, buffer=6)
        sizes = [len(fold.test) for fold in folds]
        assert sum(sizes) == 10249
        assert max(sizes) - min(sizes) < 0.2 * np.mean(sizes)
        assert min(len(fold.training_side) for fold in folds) > 4500
        lost = [np.setdiff1d(list_labels(truth, fold.test), list_labels(truth, fold.train)) for fold in folds]
        assert max(map(len, lost)) <= 2


def write_groups(path, groups: np.ndarray) -> str:
    scipy.io.savemat(path, {"groups": groups})
    return str(path)


def test_as_many_groups_as_folds_are_the_folds_and_pixels_in_none_are_not_used(farm, tmp_path):
    groups = np.zeros(farm.shape, int)
    groups[:30], groups[30:60], groups[60:80] = 4, 2, 9
    file = write_groups(tmp_path / "groups.mat", groups)
    for seed in (0, 1):
        folds = make_folds(farm, seed=seed, by="groups", groups=file, folds=3, buffer=2)
        for fold, group in zip(folds, (2, 4, 9), strict=True):
            assert {*groups[tuple(fold.test.T)].tolist()} == {group} == {*fold.groups.tolist()}
            assert (groups[tuple(fold.training_side.T)] > 0).all()
            unused = int(((groups == 0) & (farm.labels > 0)).sum())
            assert f"{unused} labelled pixels are in no group of {file} and are not used" in fold.notes
    dealt = make_folds(farm, by="groups", groups=file, folds=2, buffer=2)
    assert sorted(len(np.unique(fold.groups)) for fold in dealt) == [1, 2]


def test_a_map_of_the_folds_draws_them_again(farm, tmp_path):
    folds = make_folds(farm, seed=3, by="blocks", buffer=4)
    write_partition(number_pixels(folds, farm.shape), tmp_path / "folds.mat")
    again = make_folds(farm, seed=8, by="groups", groups=str(tmp_path / "folds.mat"), buffer=4, validation=0)
    for fold, same in zip(folds, again, strict=True):
        np.testing.assert_array_equal(fold.test, same.test)
        np.testing.assert_array_equal(np.unique(fold.training_side, axis=0), same.train)


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        (np.ones((90, 80), int), "split.folds = 5: only 1 groups contain labelled pixels; use at most 1 folds"),
        (np.ones((9, 80), int), r"split.groups = \S+: is 9 × 80 pixels, but the scene is 90 × 80; give a"),
        (np.full((90, 80), 0.5), r"\.mat: 7200 labels are not non-negative integers up to 65535, the first is 0.5"),
        (np.full((90, 80), -2), r"\.mat: 7200 labels are not non-negative integers up to 65535, the first is -2"),
    ],
)
def test_a_wrong_map_of_groups_is_refused(farm, tmp_path, groups, problem):
    with pytest.raises((SplitError, SceneError), match=problem):
        make_folds(farm, by="groups", groups=write_groups(tmp_path / "groups.mat", groups), buffer=2)


def test_more_folds_than_blocks_and_a_buffer_without_training_pixels_are_refused(farm):
    with pytest.raises(SplitError, match=r"split.folds = 5: only \d blocks .* or lower split.block_size"):
        make_folds(farm, by="blocks", block_size=90, buffer=2)
    with pytest.raises(
        SplitError, match=r"split.buffer = 80: leaves no training pixels in fold 1 of 5, .*; lower split"
    ):
        make_folds(farm, by="blocks", buffer=80)
    with pytest.raises(SplitError, match=r"split.fold: is missing; choose one of the folds, from 1 to 5"):
        make_split(farm, FoldsSplit(kind="folds", by="blocks", buffer=2))
