"""The leakage audit, against plain loops over pixels and the numbers known of public splits."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from hsi_se import make_split
from hsi_se.config.split import BlocksSplit, MasksSplit, RandomSplit
from hsi_se.evaluation.audit import Leakage, audit_leakage
from hsi_se.sampling.splits import Split
from hsi_se.scene.loading import load_ground_truth
from tests.conftest import REAL_SCENES, needs_real_scenes


def pixels(*coordinates: tuple[int, int]) -> np.ndarray:
    return np.array(coordinates, dtype=np.int64).reshape(-1, 2)


def audit(split: Split, shape: tuple[int, int], patch_size: int) -> Leakage:
    return audit_leakage(split, shape=shape, patch_size=patch_size, reduction_saw_test=False)


# ------------------------------------------------------------------------------------ by other means


@st.composite
def splits(draw: st.DrawFn) -> tuple[Split, tuple[int, int]]:
    """Every pixel of a small scene on a random side, or on none; the sides may be lopsided."""
    shape = draw(st.integers(1, 12)), draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sides = rng.choice(5, size=shape, p=rng.dirichlet(np.full(5, 0.5)))
    sides.flat[:2] = rng.permutation([1, 3])  # both are needed
    train, val, test, buffer = (np.argwhere(sides == side) for side in (1, 2, 3, 4))
    return Split(train=train, val=val, test=test, buffer=buffer), shape


@settings(max_examples=80, deadline=None)
@given(splits(), st.integers(0, 8).map(lambda margin: 2 * margin + 1))
def test_the_audit_is_what_a_loop_over_test_patches_finds(drawn, patch_size):
    split, shape = drawn
    side = [*split.train.tolist(), *split.val.tolist()]
    counts, distances = [], []
    for row, col in split.test.tolist():
        gaps = [max(abs(row - i), abs(col - j)) for i, j in side]
        counts.append(sum(gap <= patch_size // 2 for gap in gaps))
        distances.append(min(gaps))
    found = audit(split, shape, patch_size)
    assert found.patch_size == patch_size
    assert found.test_patches_with_train_pixels == pytest.approx(np.mean([count > 0 for count in counts]))
    assert found.mean_train_pixels_per_test_patch == pytest.approx(np.mean(counts))
    assert found.min_distance == min(distances)


@settings(max_examples=30, deadline=None)
@given(splits())
def test_leakage_grows_with_the_patch(drawn):
    split, shape = drawn
    audits = [audit(split, shape, patch_size) for patch_size in (1, 3, 5, 9, 25)]
    for smaller, larger in pairwise(audits):
        assert smaller.test_patches_with_train_pixels <= larger.test_patches_with_train_pixels
        assert smaller.mean_train_pixels_per_test_patch <= larger.mean_train_pixels_per_test_patch
        assert smaller.min_distance == larger.min_distance
    assert audits[0].test_patches_with_train_pixels == 0  # a patch of one pixel is the test pixel
    assert audits[-1].test_patches_with_train_pixels == 1  # larger than the scene
    assert audits[-1].mean_train_pixels_per_test_patch == pytest.approx(len(split.training_side))


def test_a_split_worked_by_hand():
    #  T . . x .     T trains, V validates, x is tested
    #  . . . . .     patch 3: both x of the last row touch V, the first x nothing
    #  . x V x .     patch 5: the first x reaches V too, no x of the last row reaches T beyond the left one
    split = Split(train=pixels((0, 0)), val=pixels((2, 2)), test=pixels((0, 3), (2, 1), (2, 3)))
    three, five, seven = (audit(split, (3, 5), size) for size in (3, 5, 7))
    assert three.test_patches_with_train_pixels == pytest.approx(2 / 3)
    assert three.mean_train_pixels_per_test_patch == pytest.approx(2 / 3)
    assert five.test_patches_with_train_pixels == 1
    assert five.mean_train_pixels_per_test_patch == pytest.approx((1 + 2 + 1) / 3)
    assert seven.mean_train_pixels_per_test_patch == 2
    assert {three.min_distance, five.min_distance, seven.min_distance} == {1}


@pytest.mark.parametrize("gap", [1, 2, 3, 4, 5])
def test_a_patch_holds_a_training_pixel_from_half_its_size_on(gap):
    split = Split(train=pixels((0, 0)), val=pixels(), test=pixels((gap, gap)))
    for patch_size in (1, 3, 5, 7, 9, 11):
        assert audit(split, (9, 9), patch_size).test_patches_with_train_pixels == (patch_size // 2 >= gap)


def test_patches_end_at_the_edge_of_the_scene():
    """A window does not wrap around, nor does what lies behind the edge count twice."""
    split = Split(train=pixels((0, 0)), val=pixels(), test=pixels((0, 9), (9, 0), (9, 9), (0, 1)))
    found = audit(split, (10, 10), 3)
    assert found.test_patches_with_train_pixels == 0.25
    assert found.mean_train_pixels_per_test_patch == 0.25


def test_the_buffer_is_of_no_account():
    without = Split(train=pixels((0, 0)), val=pixels(), test=pixels((0, 3)))
    split = Split(train=pixels((0, 0)), val=pixels(), test=pixels((0, 3)), buffer=pixels((0, 1), (0, 2)))
    assert audit(split, (1, 4), 5) == audit(without, (1, 4), 5)


@pytest.mark.parametrize("saw_test", [True, False])
def test_the_audit_says_whether_the_reduction_saw_test_pixels(saw_test):
    split = Split(train=pixels((0, 0)), val=pixels(), test=pixels((0, 3)))
    found = audit_leakage(split, shape=(1, 4), patch_size=3, reduction_saw_test=saw_test)
    assert found.reduction_saw_test is saw_test


# --------------------------------------------------------------------------------- published splits


def load_split(scene: str, **section: object) -> tuple[Split, tuple[int, int]]:
    truth = load_ground_truth(scene, REAL_SCENES)
    settings_ = MasksSplit.model_validate({"kind": "masks", "validation": 0.0, **section})
    return make_split(truth, settings_, data=REAL_SCENES), truth.shape


@pytest.fixture(scope="module")
def public_splits() -> dict[str, tuple[Split, tuple[int, int]]]:
    fixed = "Indian_pines_fixed_split.mat"
    houston = scipy.io.loadmat(REAL_SCENES / "houston_2013" / "houston_gt.mat")
    train, test = houston["houston_gt_tr"], houston["houston_gt_te"]
    return {
        "Indian Pines": load_split("indian-pines", train=fixed, train_key="TR", test=fixed, test_key="TE"),
        "Pavia University": load_split("pavia-university", train="TRpaviaU.mat", test="TSpaviaU.mat"),
        # No known scene, so its masks are not read by a config.
        "Houston": (
            Split(train=np.argwhere(train), val=pixels(), test=np.argwhere(test)),
            (train.shape[0], train.shape[1]),
        ),
    }


@needs_real_scenes
@pytest.mark.parametrize(
    ("name", "sizes", "published"),
    [
        ("Indian Pines", (695, 9671), {7: 78.9, 11: 95.8, 25: 100.0}),
        ("Pavia University", (2774, 40_002), {7: 9.8, 11: 16.7, 25: 41.5}),
        ("Houston", (2832, 12_197), {7: 6.7, 11: 15.0, 25: 41.0}),
    ],
)
def test_the_leakage_of_public_splits_is_the_published_one(public_splits, name, sizes, published):
    split, shape = public_splits[name]
    assert (len(split.train), len(split.test)) == sizes
    for patch_size, percent in published.items():
        found = audit(split, shape, patch_size)
        assert round(100 * found.test_patches_with_train_pixels, 1) == percent
        assert found.min_distance == 1


@needs_real_scenes
def test_a_random_split_leaks_into_every_patch_and_blocks_into_none():
    truth = load_ground_truth("indian-pines", REAL_SCENES)
    random = RandomSplit.model_validate({"kind": "random", "train": 0.1})
    found = audit(make_split(truth, random), truth.shape, 25)
    assert found.test_patches_with_train_pixels > 0.999
    assert found.mean_train_pixels_per_test_patch > 20
    blocks = BlocksSplit.model_validate({"kind": "blocks", "train": 0.1, "buffer": 25})
    found = audit(make_split(truth, blocks), truth.shape, 25)
    assert found.test_patches_with_train_pixels == 0
    assert found.mean_train_pixels_per_test_patch == 0
    assert found.min_distance >= 25
