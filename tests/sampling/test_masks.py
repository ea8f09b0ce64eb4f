"""Splits from files: whose labels hold, what is counted, what is refused, and the public splits."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hsi_se import make_split
from hsi_se.config.experiment import Config
from hsi_se.config.split import MasksSplit, RandomSplit
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, SceneError, SplitError
from hsi_se.sampling.disjoint import Side
from hsi_se.sampling.splits import Split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.scene.scene import GroundTruth
from tests.conftest import REAL_SCENES, ROOT, TINY, needs_real_scenes

LABELS = np.array([[1, 1, 1, 0], [4, 4, 0, 0], [9, 9, 9, 9]], dtype=np.int32)


@pytest.fixture
def truth() -> GroundTruth:
    return GroundTruth("fields", LABELS, {1: "corn", 4: "hay", 9: "oats"})


def mask_of(*pixels: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A mask `(3, 4)` from (row, col, label)."""
    mask = np.zeros((3, 4), dtype=np.uint8)
    for row, col, label in pixels:
        mask[row, col] = label
    return mask


TRAIN = mask_of((0, 0, 1), (1, 0, 4), (2, 0, 9))
TEST = mask_of((0, 2, 1), (1, 1, 4), (2, 2, 9), (2, 3, 9))


def read_config(*overrides: str) -> Config:
    return load_config(ROOT / "configs" / "demo.yaml", (*TINY, *overrides))


def read_settings(folder: Path, *more: str, **arrays: NDArray[np.generic]) -> MasksSplit:
    """Writes each array to a file of its own, `train.mat` with `TR` and so on; returns the section."""
    keys = {"train": "TR", "test": "TE", "partition": "P"}
    for name, array in arrays.items():
        scipy.io.savemat(folder / f"{name}.mat", {keys[name]: array})
    files = ", ".join(f"{name}: {folder / name}.mat" for name in arrays)
    split = read_config(f"split={{kind: masks, {files}, validation: 0}}", *more).split
    assert isinstance(split, MasksSplit)
    return split


def list_pixels(pixels: NDArray[np.int64]) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in pixels.tolist()]


# ------------------------------------------------------------------------------ two label maps


def test_masks_say_which_pixels_train_and_which_test(truth, tmp_path):
    split = make_split(truth, read_settings(tmp_path, train=TRAIN, test=TEST))
    assert list_pixels(split.train) == [(0, 0), (1, 0), (2, 0)]
    assert list_pixels(split.test) == [(0, 2), (1, 1), (2, 2), (2, 3)]
    assert not len(split.val)
    assert not len(split.buffer)
    assert split.labels is None
    assert split.notes == ()
    assert split.relabel(truth) is truth


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64, bool])
def test_masks_of_any_numeric_type_are_read(tmp_path, dtype):
    labels = np.ones((3, 4), dtype=np.int32)
    train = np.zeros((3, 4), dtype=dtype)
    train[0] = 1
    truth = GroundTruth("one", labels, {1: "corn"})
    split = make_split(truth, read_settings(tmp_path, train=train, test=1 - train.astype(np.uint8)))
    assert (len(split.train), len(split.test)) == (4, 8)


def test_keys_pick_the_masks_out_of_one_file(truth, tmp_path):
    file = tmp_path / "split.mat"
    scipy.io.savemat(file, {"TR": TRAIN, "TE": TEST, "other": TEST})
    section = f"split={{kind: masks, train: {file}, train_key: TR, test: {file}, test_key: TE}}"
    split = make_split(truth, read_config(section, "split.validation=0").split)
    assert split.digest == make_split(truth, read_settings(tmp_path, train=TRAIN, test=TEST)).digest
    swapped = f"split={{kind: masks, train: {file}, train_key: TE, test: {file}, test_key: TR}}"
    split = make_split(truth, read_config(swapped, "split.validation=0").split)
    assert (len(split.train), len(split.test)) == (4, 3)


def test_masks_are_found_below_the_data_folder(truth, tmp_path):
    (tmp_path / "fields").mkdir()
    scipy.io.savemat(tmp_path / "fields" / "TR.mat", {"TR": TRAIN})
    scipy.io.savemat(tmp_path / "fields" / "te.mat", {"TE": TEST})
    section = read_config("split={kind: masks, train: tr.mat, test: fields/TE.mat}").split
    assert len(make_split(truth, section, data=tmp_path).test) == 4


def test_a_masks_label_wins_over_the_scenes_and_the_difference_is_counted(truth, tmp_path):
    train = mask_of((0, 0, 1), (1, 0, 9), (1, 2, 4))  # hay is oats; an unlabelled pixel is hay
    test = mask_of((0, 2, 4), (2, 2, 9))  # corn is hay
    split = make_split(truth, read_settings(tmp_path, train=train, test=test))
    assert split.notes == (
        "the masks disagree with the scene's labels at 2 training and 1 test pixels; the masks take precedence",
    )
    assert split.labels is not None
    assert split.labels.tolist() == [[1, 1, 4, 0], [9, 4, 4, 0], [9, 9, 9, 9]]
    assert split.relabel(truth).labels is split.labels
    assert split.relabel(truth).class_names == truth.class_names
    assert (truth.labels == LABELS).all()
    assert list_pixels(split.train) == [(0, 0), (1, 0), (1, 2)]
    same_pixels = make_split(
        truth,
        read_settings(tmp_path, train=mask_of((0, 0, 1), (1, 0, 4), (1, 2, 9)), test=mask_of((0, 2, 1), (2, 2, 9))),
    )
    assert np.array_equal(split.train, same_pixels.train)
    assert split.digest != same_pixels.digest  # other labels are another split


def test_validation_is_taken_from_the_training_mask(truth, tmp_path):
    train = mask_of((2, 0, 9), (2, 1, 9), (2, 2, 9), (0, 0, 1))
    test = mask_of((0, 2, 1), (2, 3, 9))
    settings_ = read_settings(tmp_path, "split.validation=0.4", train=train, test=test)
    split = make_split(truth, settings_, seed=3)
    assert len(split.val) == 1
    assert split.val[0, 0] == 2
    assert sorted(list_pixels(split.training_side)) == [(0, 0), (2, 0), (2, 1), (2, 2)]
    assert list_pixels(split.test) == [(0, 2), (2, 3)]


def test_the_split_seed_decides_the_validation_pixels_alone(truth, tmp_path):
    settings_ = read_settings(
        tmp_path, "split.validation=0.5", train=np.where(LABELS == 9, 9, 0), test=mask_of((0, 0, 1))
    )
    splits = [make_split(truth, settings_, seed=seed) for seed in range(8)]
    assert len({split.digest for split in splits}) > 1
    assert len({split.test.tobytes() for split in splits}) == 1


# ------------------------------------------------------------------------------- a partition map


def test_a_partition_map_gives_every_side(truth, tmp_path):
    partition = np.array([[1, 2, 3, 0], [4, 3, 0, 0], [1, 4, 0, 3]])
    split = make_split(truth, read_settings(tmp_path, partition=partition))
    assert list_pixels(split.train) == [(0, 0), (2, 0)]
    assert list_pixels(split.val) == [(0, 1)]
    assert list_pixels(split.test) == [(0, 2), (1, 1), (2, 3)]
    assert list_pixels(split.buffer) == [(1, 0), (2, 1)]
    assert split.labels is None


def test_the_sides_of_a_partition_map_have_fixed_numbers():
    assert {side.name.lower(): side.value for side in Side} == {
        "unused": 0, "train": 1, "validation": 2, "test": 3, "buffer": 4,
    }  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["random", "blocks", "fields"]), st.floats(0, 0.5))
def test_a_split_saved_as_a_partition_map_reads_back_the_same(tmp_path_factory, seed, kind, validation):
    labels = np.random.default_rng(seed).choice([0, 1, 5], size=(14, 15)).astype(np.int32)
    truth = GroundTruth("random", labels, {1: "corn", 5: "hay"})
    section: dict[str, object] = {"kind": kind, "train": 0.4, "validation": validation}
    if kind != "random":
        section["buffer"] = 3
    split = make_split(truth, read_config(f"split={section}").split, seed=seed)

    folder = tmp_path_factory.mktemp("partition")
    # Without validation pixels in the map, the reader would set its own apart.
    again = make_split(truth, read_settings(folder, partition=split.to_sides(truth.shape)))
    assert again.digest == split.digest
    assert np.array_equal(again.buffer, split.buffer)


# ---------------------------------------------------------------------------------- bad input


def refuse(truth: GroundTruth, split: MasksSplit, kind: type[Exception] = SplitError) -> str:
    """Returns the one line with which a split is refused."""
    with pytest.raises(kind) as caught:
        make_split(truth, split)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_masks_that_overlap_are_refused_with_how_many_and_the_first(truth, tmp_path):
    test = mask_of((1, 0, 4), (2, 0, 4), (2, 1, 9))
    assert refuse(truth, read_settings(tmp_path, train=TRAIN, test=test)) == (
        f"split.test = {tmp_path}/test.mat: 2 pixels, the first at row 1, col 0, are also in the training "
        "mask; give masks that do not overlap"
    )


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_mask_of_another_size_is_refused_with_both_sizes(truth, tmp_path, name):
    masks = {"train": TRAIN, "test": TEST, name: np.ones((4, 3))}
    assert refuse(truth, read_settings(tmp_path, **masks)) == (
        f"split.{name} = {tmp_path}/{name}.mat: is 4 × 3 pixels, but the scene is 3 × 4; give a mask of the same size"
    )


def test_a_partition_map_of_another_size_is_refused_with_both_sizes(truth, tmp_path):
    message = refuse(truth, read_settings(tmp_path, partition=np.ones((3, 5))))
    assert message.startswith(f"split.partition = {tmp_path}/partition.mat: is 3 × 5 pixels, but the scene is 3 ×")


@pytest.mark.parametrize("name", ["train", "test"])
def test_ids_that_the_scene_lacks_are_refused_with_those_it_has(truth, tmp_path, name):
    masks = {"train": TRAIN, "test": TEST, name: mask_of((0, 1, 2), (2, 1, 10))}
    assert refuse(truth, read_settings(tmp_path, **masks)) == (
        f"split.{name} = {tmp_path}/{name}.mat: labels 2, 10 are not in the scene (1, 4, 9); "
        "give a mask with the scene's labels"
    )


def test_numbers_without_a_meaning_in_a_partition_map_are_refused_with_those_that_have_one(truth, tmp_path):
    partition = np.array([[1, 3, 7, 0], [0, 5, 0, 0], [0, 0, 0, 0]])
    assert refuse(truth, read_settings(tmp_path, partition=partition)) == (
        f"split.partition = {tmp_path}/partition.mat: contains 5, 7; "
        "use only 0 unused, 1 train, 2 validation, 3 test, 4 buffer"
    )


def test_a_side_on_an_unlabelled_pixel_is_refused_with_its_place(truth, tmp_path):
    partition = np.array([[1, 3, 0, 0], [0, 0, 3, 4], [0, 0, 0, 0]])
    assert refuse(truth, read_settings(tmp_path, partition=partition)) == (
        f"split.partition = {tmp_path}/partition.mat: 2 pixels, the first at row 1, col 2, are assigned "
        "to a set but have no label in the scene; set them to 0"
    )


@pytest.mark.parametrize(("name", "what"), [("train", "training"), ("test", "test")])
def test_an_empty_mask_is_refused(truth, tmp_path, name, what):
    masks = {"train": TRAIN, "test": TEST, name: np.zeros_like(TRAIN)}
    assert f"the {what} set is empty" in refuse(truth, read_settings(tmp_path, **masks))


def test_a_partition_map_without_test_pixels_is_refused(truth, tmp_path):
    message = refuse(truth, read_settings(tmp_path, partition=np.where(LABELS == 9, 1, 0)))
    assert message.startswith("split: the test set is empty; ")


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_missing_mask_is_named_with_where_it_was_looked_for(truth, tmp_path, name):
    split = read_settings(tmp_path, train=TRAIN, test=TEST).model_copy(update={name: "absent.mat"})
    assert refuse(truth, split, SceneError) == (
        f"split.{name}: no file absent.mat in the current folder or below datasets; put it there, "
        "or give its folder with data=…"
    )


def test_a_missing_key_is_answered_with_what_the_file_holds(truth, tmp_path):
    split = read_settings(tmp_path, "split.test_key=Te", train=TRAIN, test=TEST)
    message = refuse(truth, split, SceneError)
    assert message.startswith(f"{tmp_path}/test.mat: split.test_key = 'Te' is not a 2-D numeric array")
    assert "TE 3×4 uint8" in message


def test_several_masks_in_a_file_are_listed_with_the_setting_that_picks_one(truth, tmp_path):
    scipy.io.savemat(tmp_path / "both.mat", {"TR": TRAIN, "TE": TEST})
    split = read_settings(tmp_path, train=TRAIN, test=TEST)
    split = split.model_copy(update={"train": str(tmp_path / "both.mat")})
    message = refuse(truth, split, SceneError)
    assert message == f"{tmp_path}/both.mat: 2 2-D arrays (TR, TE); choose one with split.train_key"


def test_a_mask_that_is_no_label_map_is_refused_with_the_place(truth, tmp_path):
    test = TEST.astype(float)
    test[2, 3] = 0.5
    message = refuse(truth, read_settings(tmp_path, train=TRAIN, test=test), SceneError)
    assert "1 labels are not non-negative integers up to 65535, the first is 0.5 at row 2, col 3" in message


@pytest.mark.parametrize(
    "given_",
    ["", "train: a.mat", "test: a.mat", "train: a, test: b, partition: c", "train: a, partition: c",
     "test: a, partition: c"],
)  # fmt: skip
def test_both_masks_or_one_partition_map_must_be_given(given_):
    with pytest.raises(ConfigError) as caught:
        read_config(f"split={{kind: masks, {given_}}}")
    message = str(caught.value)
    assert message.endswith(": split: give train: FILE and test: FILE, or only partition: FILE")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("given_", "key", "problem"),
    [
        ("train: a, test: b, partition_key: c", "partition_key", "has no effect without partition: FILE"),
        ("partition: a, train_key: c", "train_key", "has no effect with partition: FILE"),
        ("partition: a, test_key: c", "test_key", "has no effect with partition: FILE"),
        ("partition: a, seed: 0", "seed", "has no effect with partition: FILE"),
        ("partition: a, validation: 0.2", "validation", "has no effect with partition: FILE"),
        ("train: a, test: b, validation: 0, seed: 2", "seed", "has no effect with validation: 0"),
    ],
)
def test_a_key_without_its_file_is_refused_by_name(given_, key, problem):
    with pytest.raises(ConfigError, match=rf"split\.{key} = \S+: {problem}.*; leave it out$"):
        read_config(f"split={{kind: masks, {given_}}}")


# ---------------------------------------------------------------------------- the public splits


def load_public_split(scene: str, train: str, test: str) -> tuple[GroundTruth, Split]:
    """`train` and `test` are FILE or FILE:KEY."""
    section = {"kind": "masks", "validation": 0.0}
    for name, place in (("train", train), ("test", test)):
        file, _, key = place.partition(":")
        section |= {name: file} | ({f"{name}_key": key} if key else {})
    truth = load_ground_truth(scene, REAL_SCENES)
    return truth, make_split(truth, MasksSplit.model_validate(section), data=REAL_SCENES)


@needs_real_scenes
def test_the_fixed_split_of_indian_pines_disagrees_with_the_public_labels_at_256_pixels():
    file = "Indian_pines_fixed_split.mat"
    truth, split = load_public_split("indian-pines", f"{file}:TR", f"{file}:TE")
    assert (len(split.train), len(split.test), len(split.buffer)) == (695, 9671, 0)
    assert split.notes == (
        "the masks disagree with the scene's labels at 26 training and 230 test pixels; the masks take precedence",
    )
    masks = scipy.io.loadmat(REAL_SCENES / "indian_pines" / file)
    for side, key in ((split.train, "TR"), (split.test, "TE")):
        expected = masks[key][side[:, 0], side[:, 1]]
        assert (split.relabel(truth).labels[side[:, 0], side[:, 1]] == expected).all()


@needs_real_scenes
def test_the_fixed_split_of_pavia_university_partitions_its_labels():
    truth, split = load_public_split("pavia-university", "TRpaviaU.mat", "TSpaviaU.mat")
    assert (len(split.train), len(split.test)) == (2774, 40_002)
    assert len(split.train) + len(split.test) == (truth.labels > 0).sum()
    assert split.notes == ()
    assert split.labels is None


# ------------------------------------------------------------------ a random split to compare with


def split_at_random(truth: GroundTruth, counts: dict[int, int], *, seed: int = 0) -> Split:
    section = {"kind": "random", "train": {"per_class": counts}, "validation": 0.2}
    return make_split(truth, RandomSplit.model_validate(section), seed=seed)


@pytest.mark.parametrize("kind", ["blocks", "fields"])
def test_a_random_split_takes_as_many_training_pixels_of_each_class_as_a_disjoint_one(small_scene, kind):
    disjoint = make_split(small_scene, read_config(f"split={{kind: {kind}, train: 0.3, buffer: 5}}").split)
    counts = Counter(small_scene.labels[tuple(disjoint.training_side.T)].tolist())
    split = split_at_random(small_scene, counts)
    for label in small_scene.class_ids.tolist():
        of_class = [
            (small_scene.labels[side[:, 0], side[:, 1]] == label).sum()
            for side in (disjoint.training_side, split.training_side, split.test)
        ]
        assert of_class[0] == of_class[1] == counts.get(label, 0)
        assert of_class[1] + of_class[2] == (small_scene.labels == label).sum()
    assert not len(split.buffer)
    assert len(split.val)
    everything = np.concatenate([split.train, split.val, split.test])
    assert sorted(list_pixels(everything)) == list_pixels(np.argwhere(small_scene.labels > 0))
    assert split.digest != split_at_random(small_scene, counts, seed=1).digest


def test_a_class_that_one_split_does_not_train_the_random_one_does_not_either(truth):
    split = split_at_random(truth, {1: 2, 9: 4})
    labels = truth.labels[split.training_side[:, 0], split.training_side[:, 1]]
    assert sorted(labels.tolist()) == [1, 1, 9, 9, 9, 9]
    assert truth.labels[split.test[:, 0], split.test[:, 1]].tolist() == [1, 4, 4]
    assert "oats: every pixel is used for training, so none is left for testing" in split.notes


def test_counts_for_labels_that_the_scene_lacks_are_refused(truth):
    with pytest.raises(SplitError, match=r"per_class: labels 2, 7 are not in the scene \(1, 4, 9\)"):
        split_at_random(truth, {1: 1, 7: 1, 2: 1})
