"""Splits whose sides lie apart: nothing leaks up to the buffer, and every class that can be is on both."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

from hsi_se import make_split
from hsi_se.cli import main as cli
from hsi_se.config.split import BlocksSplit, FieldsSplit
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, SplitError
from hsi_se.evaluation.audit import audit_leakage
from hsi_se.sampling.splits import Split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.scene.scene import GroundTruth
from tests.conftest import REAL_SCENES, ROOT, TINY, needs_real_scenes


def scene_of(labels: NDArray[np.integer]) -> GroundTruth:
    labels = np.asarray(labels, dtype=np.int32)
    names = {int(label): f"class {label}" for label in np.unique(labels) if label}
    return GroundTruth("test", labels, names)


def blocks_split(**changes: object) -> BlocksSplit:
    return BlocksSplit.model_validate(
        {"kind": "blocks", "train": 0.3, "block_size": 16, "buffer": 9, "validation": 0.0, **changes}
    )


def fields_split(**changes: object) -> FieldsSplit:
    return FieldsSplit.model_validate({"kind": "fields", "train": 0.3, "buffer": 3, "validation": 0.0, **changes})


def list_pixels(pixels: NDArray[np.int64]) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in pixels.tolist()]


def labels_of(truth: GroundTruth, pixels: NDArray[np.int64]) -> NDArray[np.int32]:
    return truth.labels[pixels[:, 0], pixels[:, 1]]


def find_reach(truth: GroundTruth) -> dict[int, int]:
    """The largest Chebyshev distance between two pixels of each class, over all pairs of its outline."""
    reach = {}
    for label in truth.class_ids.tolist():
        of_class = truth.labels == label
        outline = np.argwhere(of_class & ~ndimage.binary_erosion(of_class))
        reach[label] = int(cdist(outline, outline, "chebyshev").max())
    return reach


def find_one_sided(truth: GroundTruth, split: Split) -> set[int]:
    train, test = (set(labels_of(truth, side).tolist()) for side in (split.training_side, split.test))
    return set(truth.class_ids.tolist()) - (train & test)


# -------------------------------------------------------------------------- blocks, on random maps


@st.composite
def label_maps(draw: st.DrawFn) -> NDArray[np.int64]:
    """Patchy or speckled maps with gaps in the labels and in the ids."""
    shape = (draw(st.integers(4, 26)), draw(st.integers(4, 26)))
    grain = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = rng.choice([0, 0, 1, 2, 5, 9], size=(26 // grain + 1, 26 // grain + 1))
    labels = np.kron(coarse, np.ones((grain, grain), dtype=np.int64))[: shape[0], : shape[1]]
    labels[0, 0] = 1  # something is labelled
    return labels


some_blocks = st.builds(
    blocks_split,
    train=st.floats(0.05, 0.9),
    block_size=st.integers(1, 12),
    buffer=st.integers(0, 12),
    validation=st.sampled_from([0.0, 0.3]),
)


def is_possible(truth: GroundTruth, buffer: int) -> bool:
    return max(find_reach(truth).values()) >= max(buffer, 1)


def draw_or_none(truth: GroundTruth, split: BlocksSplit, *, seed: int) -> Split | None:
    """Returns the split; none only where no two pixels of a class lie far enough apart to be divided."""
    if is_possible(truth, split.buffer or 0):
        return make_split(truth, split, seed=seed)
    with pytest.raises(SplitError, match=r"^split\.buffer = \d+: no assignment of blocks "):
        make_split(truth, split, seed=seed)
    return None


@settings(max_examples=20, deadline=None)
@given(label_maps(), some_blocks, st.integers(0, 2**63 - 1))
def test_blocks_never_leak_at_any_patch_size_up_to_the_buffer(labels, blocks, seed):
    split = draw_or_none(scene_of(labels), blocks, seed=seed)
    if split is None:
        return
    near = np.abs(split.test[:, None] - split.training_side[None]).max(axis=2)
    assert near.min() >= blocks.buffer
    for patch_size in range(1, blocks.buffer + 1, 2):
        audit = audit_leakage(split, shape=labels.shape, patch_size=patch_size, reduction_saw_test=False)
        assert audit.test_patches_with_train_pixels == 0
        assert audit.mean_train_pixels_per_test_patch == 0
        assert audit.min_distance == near.min()
        train, test = (draw_patches(side, labels.shape, patch_size) for side in (split.training_side, split.test))
        assert not (train & test).any()


def draw_patches(pixels: NDArray[np.int64], shape: tuple[int, ...], patch_size: int) -> NDArray[np.bool_]:
    """Every pixel, beyond the scene's edge too, that lies in the patch of one of the pixels."""
    covered = np.zeros((shape[0] + patch_size - 1, shape[1] + patch_size - 1), dtype=bool)
    for row, col in pixels:
        covered[row : row + patch_size, col : col + patch_size] = True
    return covered


@settings(max_examples=15, deadline=None)
@given(label_maps(), some_blocks, st.integers(0, 9))
def test_the_sides_of_blocks_and_their_buffer_partition_the_labelled_pixels(labels, blocks, seed):
    split = draw_or_none(scene_of(labels), blocks, seed=seed)
    if split is None:
        return
    everything = [*split.train, *split.val, *split.test, *split.buffer]
    assert sorted(map(tuple, everything)) == list_pixels(np.argwhere(labels > 0))
    if blocks.buffer <= 1:
        assert not len(split.buffer)


@pytest.mark.exhaustive
@settings(max_examples=15, deadline=None)
@given(label_maps(), some_blocks, st.integers(0, 9))
def test_every_class_that_a_blocks_split_leaves_on_one_side_is_named_and_no_other(labels, blocks, seed):
    truth = scene_of(labels)
    split = draw_or_none(truth, blocks, seed=seed)
    if split is None:
        return
    for side, what in ((split.training_side, "training"), (split.test, "test")):
        absent = set(truth.class_ids.tolist()) - set(labels_of(truth, side).tolist())
        names = ", ".join(truth.class_names[label] for label in sorted(absent))
        sentence = f"no {what} pixels with this buffer for {names}"
        assert [note for note in split.notes if what in note] == ([sentence] if absent else [])
    too_close = {label for label, reach in find_reach(truth).items() if reach < max(blocks.buffer, 1)}
    assert too_close <= find_one_sided(truth, split)


@settings(max_examples=15, deadline=None)
@given(label_maps(), some_blocks, st.integers(0, 9))
def test_the_buffer_holds_only_pixels_too_near_to_training_ones(labels, blocks, seed):
    split = draw_or_none(scene_of(labels), blocks, seed=seed)
    if split is None:
        return
    near = np.abs(split.buffer[:, None] - split.training_side[None]).max(axis=2)
    assert (near.min(axis=1) < blocks.buffer).all()


def test_a_class_inside_a_single_block_is_on_both_sides_where_two_pixels_lie_apart():
    labels = np.ones((40, 40))
    labels[20, 18:28] = 2  # 10 pixels in a row: its ends are 9 apart
    truth = scene_of(labels)
    for seed in range(4):
        split = make_split(truth, blocks_split(block_size=32, buffer=9), seed=seed)
        assert not find_one_sided(truth, split)
        assert split.notes == ()
        tight = make_split(truth, blocks_split(block_size=32, buffer=10), seed=seed)
        assert find_one_sided(truth, tight) == {2}


def test_the_same_seed_draws_the_same_blocks(small_scene):
    blocks = blocks_split(block_size=5, buffer=3)
    one, same, *others = (make_split(small_scene, blocks, seed=seed) for seed in (1, 1, 2, 3, 4))
    assert one.digest == same.digest
    assert np.array_equal(one.buffer, same.buffer)
    assert len({one.digest, *(other.digest for other in others)}) == 4


def test_the_splits_own_seed_decides_the_blocks(small_scene):
    drawn = {make_split(small_scene, blocks_split(block_size=5, buffer=3, seed=7), seed=seed).digest for seed in (0, 1)}
    assert drawn == {make_split(small_scene, blocks_split(block_size=5, buffer=3), seed=7).digest}


@pytest.mark.parametrize("validation", [0.0, 0.5])
def test_validation_pixels_of_blocks_are_as_far_from_the_test_side_as_training_ones(small_scene, validation):
    split = make_split(small_scene, blocks_split(block_size=6, buffer=5, validation=validation))
    assert (len(split.val) > 0) == (validation > 0)
    assert np.abs(split.test[:, None] - split.training_side[None]).max(axis=2).min() >= 5


def test_a_buffer_as_large_as_the_scene_is_refused(small_scene):
    with pytest.raises(SplitError) as caught:
        make_split(small_scene, blocks_split(buffer=32))
    assert str(caught.value) == (
        "split.buffer = 32: no assignment of blocks of 16 pixels gives any class both training and test "
        "pixels in a scene of 32 × 28; lower split.buffer"
    )


def test_a_buffer_that_leaves_nothing_ends_in_one_line(tmp_path, monkeypatch, capsys):
    config, folder = str(ROOT / "configs" / "demo.yaml"), str(tmp_path / "run")
    overrides = (*TINY, "split={kind: blocks, train: 0.3, buffer: 99}")
    arguments = [part for override in overrides for part in ("--set", override)]
    monkeypatch.setattr("sys.argv", ["hsi-se", "train", config, "--out", folder, *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "hsi-se: split.buffer = 99: no assignment of blocks of 16 pixels gives any class both training and "
        "test pixels in a scene of 24 × 24; lower split.buffer\n"
    )
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------- the buffer


@pytest.mark.parametrize("kind", ["blocks", "fields"])
def test_the_buffer_is_the_patch_size_unless_given(kind):
    demo = ROOT / "configs" / "demo.yaml"
    split = f"split={{kind: {kind}, train: 0.2}}"
    for size in (9, 13):
        config = load_config(demo, (*TINY, split, f"patch.size={size}"))
        assert isinstance(config.split, BlocksSplit | FieldsSplit)
        assert config.split.buffer == size
    for buffer in (0, 4):
        config = load_config(demo, (*TINY, split, f"split.buffer={buffer}"))
        assert isinstance(config.split, BlocksSplit | FieldsSplit)
        assert config.split.buffer == buffer


@pytest.mark.parametrize("kind", ["blocks", "fields"])
def test_without_a_patch_size_the_buffer_must_be_given(kind):
    split = (blocks_split if kind == "blocks" else fields_split)(buffer=None)
    with pytest.raises(
        SplitError, match=r"^split\.buffer: is missing; give the distance between training and test pixels"
    ):
        make_split(scene_of(np.ones((9, 9))), split)


@pytest.mark.parametrize("change", ["buffer=-1", "block_size=0", "train=1.2", "train=0", "train={per_class: 5}"])
def test_settings_of_blocks_out_of_their_range_are_refused_by_name(change):
    override = f"split.{change}"
    with pytest.raises(ConfigError) as caught:
        load_config(ROOT / "configs" / "demo.yaml", (*TINY, "split={kind: blocks, train: 0.2}", override))
    assert f"split.{change.partition('=')[0]}" in str(caught.value).removeprefix(f"--set {override}: ")


def test_no_buffer_loses_no_pixel():
    labels = np.repeat([1, 2], 800).reshape(40, 40)
    split = make_split(scene_of(labels), blocks_split(buffer=0, block_size=8, train=0.25))
    assert not len(split.buffer)
    assert len(split.train) / 1600 == pytest.approx(0.25, abs=0.02)


# ------------------------------------------------------------------------ blocks, on the real maps


@pytest.fixture(scope="module")
def indian_pines() -> GroundTruth:
    return load_ground_truth("indian-pines", REAL_SCENES)


@pytest.fixture(scope="module")
def pavia_university() -> GroundTruth:
    return load_ground_truth("pavia-university", REAL_SCENES)


@needs_real_scenes
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("buffer", "reach_too_short"), [(9, {7}), (15, {1, 7, 9, 16})])
def test_on_indian_pines_every_class_is_on_both_sides_but_those_smaller_than_the_buffer(
    indian_pines, buffer, reach_too_short, seed
):
    reach = find_reach(indian_pines)
    assert {label for label in reach if reach[label] < buffer} == reach_too_short
    split = make_split(indian_pines, blocks_split(train=0.1, buffer=buffer), seed=seed)
    assert find_one_sided(indian_pines, split) == reach_too_short
    named = " ".join(split.notes)
    for label, name in indian_pines.class_names.items():
        assert (name in named.replace("Grass-pasture-mowed", "mown")) == (label in reach_too_short - {7}), name
    assert "Grass-pasture-mowed" in named
    audit = audit_leakage(split, shape=indian_pines.shape, patch_size=buffer, reduction_saw_test=False)
    assert audit.test_patches_with_train_pixels == 0
    assert audit.min_distance >= buffer
    assert len(split.train) + len(split.test) + len(split.buffer) == 10_249
    assert len(split.train) / 10_249 == pytest.approx(0.1, abs=0.02)


@pytest.mark.slow
@needs_real_scenes
@pytest.mark.parametrize("seed", [0, 1])
def test_on_pavia_university_every_class_has_its_share_on_both_sides(pavia_university, seed):
    split = make_split(pavia_university, blocks_split(train=0.1), seed=seed)
    assert split.notes == ()
    assert not find_one_sided(pavia_university, split)
    sizes = np.bincount(labels_of(pavia_university, np.argwhere(pavia_university.labels > 0)))[1:]
    shares = np.bincount(labels_of(pavia_university, split.train), minlength=10)[1:] / sizes
    assert shares == pytest.approx(0.1, abs=0.1)
    assert len(split.train) / sizes.sum() == pytest.approx(0.1, abs=0.01)
    assert len(split.buffer) / sizes.sum() < 0.3
    for patch_size in (1, 3, 5, 7, 9):
        audit = audit_leakage(split, shape=pavia_university.shape, patch_size=patch_size, reduction_saw_test=False)
        assert audit.test_patches_with_train_pixels == 0


# ----------------------------------------------------------------------------------------- fields


def find_fields(labels: NDArray[np.int64]) -> list[set[tuple[int, int]]]:
    """Connected pixels of one class, by a flood that a queue drives; a corner connects."""
    rest = {(int(row), int(col)) for row, col in np.argwhere(labels > 0)}
    fields = []
    while rest:
        queue = [rest.pop()]
        found = set(queue)
        while queue:
            row, col = queue.pop()
            around = {(row + i, col + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & rest
            joined = {pixel for pixel in around if labels[pixel] == labels[row, col]}
            rest -= joined
            found |= joined
            queue.extend(joined)
        fields.append(found)
    return fields


@settings(max_examples=40, deadline=None)
@given(label_maps(), st.floats(0.05, 0.9), st.integers(0, 6), st.sampled_from([0.0, 0.3]), st.integers(0, 9))
def test_whole_fields_go_to_one_side_and_only_single_fields_lose_a_buffer(labels, train, buffer, validation, seed):
    truth = scene_of(labels)
    fields = find_fields(labels)
    of_class = {int(label): [f for f in fields if labels[next(iter(f))] == label] for label in truth.class_ids}
    try:
        split = make_split(truth, fields_split(train=train, buffer=buffer, validation=validation), seed=seed)
    except SplitError:
        assert all(len(of) == 1 for of in of_class.values())
        return
    sides = [set(map(tuple, side.tolist())) for side in (split.training_side, split.test, split.buffer)]
    assert set().union(*sides) == {pixel for field in fields for pixel in field}
    for label, of in of_class.items():
        if len(of) > 1:
            assert all(field <= sides[0] or field <= sides[1] for field in of)
            assert any(field <= sides[0] for field in of)
            assert any(field <= sides[1] for field in of)
        else:
            trained, tested = (np.array(sorted(of[0] & side)).reshape(-1, 2) for side in sides[:2])
            assert len(trained) == max(1, min(round(train * len(of[0])), len(of[0]) - 1))
            if len(tested):
                assert cdist(trained, tested, "chebyshev").min() >= buffer
            else:
                assert f"class {label}" in " ".join(split.notes)


@pytest.mark.parametrize("turned", [False, True])
def test_a_single_field_is_cut_across_its_long_axis(turned):
    labels = np.zeros((12, 40), dtype=np.int64)
    labels[2:8, 5:35] = 3  # 6 × 30
    truth = scene_of(labels.T if turned else labels)
    for seed in range(4):
        split = make_split(truth, fields_split(train=0.2, buffer=4), seed=seed)
        train, test = (side[:, ::-1] if turned else side for side in (split.train, split.test))
        assert len(train) == 36
        assert set(train[:, 1]) in ({*range(5, 11)}, {*range(29, 35)})
        gap = max(train[:, 1].min() - test[:, 1].max(), test[:, 1].min() - train[:, 1].max())
        assert gap == 4  # Chebyshev distance of the buffer itself: three columns are lost
        assert len(split.buffer) == 3 * 6


def test_a_slanted_field_is_cut_across_its_long_axis():
    rows, cols = np.mgrid[:40, :40]
    labels = np.where((np.abs(rows - cols) <= 2), 1, 0)
    split = make_split(scene_of(labels), fields_split(train=0.5, buffer=1))
    sums = [side.sum(axis=1) for side in (split.train, split.test)]
    assert sums[0].max() <= sums[1].min() or sums[1].max() <= sums[0].min()


def test_a_single_field_smaller_than_the_buffer_is_named():
    labels = np.zeros((10, 10), dtype=np.int64)
    labels[:, 0], labels[:, 5] = 1, 1
    labels[2, 7:10] = 2
    split = make_split(scene_of(labels), fields_split(buffer=5))
    assert split.notes == ("no test pixels with this buffer for class 2",)
    assert len(split.buffer) == 2


def test_the_same_seed_draws_the_same_fields_and_another_others():
    labels = np.zeros((30, 30), dtype=np.int64)
    labels[::3, ::3] = 1
    one, same, other = (make_split(scene_of(labels), fields_split(), seed=seed).digest for seed in (1, 1, 2))
    assert one == same
    assert one != other


@needs_real_scenes
@pytest.mark.parametrize("train", [0.1, 0.3])
@pytest.mark.parametrize("scene", ["indian_pines", "pavia_university"])
def test_fields_of_the_real_maps_come_close_to_the_share(scene, train, request):
    truth = request.getfixturevalue(scene)
    split = make_split(truth, fields_split(train=train, buffer=9))
    for label in truth.class_ids.tolist():
        fields, num_fields = ndimage.label(truth.labels == label, structure=np.ones((3, 3)))
        sizes = np.bincount(fields.ravel())[1:]
        num_train = (labels_of(truth, split.train) == label).sum()
        closest = 0.0 if num_fields > 1 else 0.5
        if 1 < num_fields <= 10:  # every set of fields but none and all
            sums = [np.dot(chosen, sizes) for chosen in product([0, 1], repeat=num_fields)][1:-1]
            closest = np.abs(np.array(sums) - train * sizes.sum()).min()
        assert abs(num_train - train * sizes.sum()) <= closest + 0.03 * sizes.sum(), label
        lost = (labels_of(truth, split.buffer) == label).any()
        assert num_fields == 1 or not lost
