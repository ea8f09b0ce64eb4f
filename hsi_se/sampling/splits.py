"""Splits labelled pixels into training, validation and test sets; `Pixels` are `(n, 2)` of (row, col)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray

from hsi_se.config import split as config
from hsi_se.errors import SplitError
from hsi_se.sampling.disjoint import Side, SideMap, divide_by_blocks, divide_by_fields
from hsi_se.sampling.masks import read_masks
from hsi_se.sampling.spatial_folds import divide_by_fold, divide_by_image
from hsi_se.scene.folders import Data, Folders
from hsi_se.scene.scene import GroundTruth
from hsi_se.system.forms import Form
from hsi_se.system.notebook import draw_html

Pixels = NDArray[np.int64]
Truth = TypeVar("Truth", bound=GroundTruth)
_NAMES = {Side.TRAIN: "train", Side.VALIDATION: "val", Side.TEST: "test", Side.BUFFER: "buffer"}


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Disjoint training, validation and test sets; the constructor checks that they are disjoint.

    Attributes:
        train, val, test: `(n, 2)` int64 of (row, col), in ascending order.
        buffer: `(n, 2)` labelled pixels left out because they are too close to the training set.
        labels: `(rows, cols)` label map to use if mask files changed the scene's labels; otherwise None.
        groups: `(n,)` of a fold, the block, field or group of each test pixel; otherwise None.
        notes: notes for the user about this split, one sentence each.

    Raises:
        SplitError: a pixel is in two sets.
    """

    train: Annotated[Pixels, Form("train 2", low=0)]
    val: Annotated[Pixels, Form("val 2", low=0)]
    test: Annotated[Pixels, Form("test 2", low=0)]
    buffer: Annotated[Pixels, Form("buffer 2", low=0)] = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))
    labels: Annotated[NDArray[np.int32] | None, Form("rows cols", low=0)] = None
    groups: Annotated[NDArray[np.int64] | None, Form("test")] = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        everything = np.concatenate([self.train, self.val, self.test, self.buffer])
        pixels, counts = np.unique(everything, axis=0, return_counts=True)
        if (counts > 1).any():
            row, col = pixels[counts > 1][0]
            problem = f"{int((counts > 1).sum())} pixels are in more than one set, the first at row {row}, col {col}"
            raise SplitError(f"split: {problem}; give disjoint sets")

    def __repr__(self) -> str:
        return f"Split({', '.join(f'{count} {name}' for name, count in self._count())} pixels)"

    def _repr_html_(self) -> str:
        return draw_html("Split", headings=("set", "pixels"), rows=self._count(), text=" ".join(self.notes))

    def _count(self) -> list[tuple[str, str]]:
        sets = {"training": self.train, "validation": self.val, "test": self.test, "buffer": self.buffer}
        return [(name, f"{len(pixels):,}") for name, pixels in sets.items()]

    @cached_property
    def training_side(self) -> Pixels:
        """Training and validation pixels `(n, 2)`: those whose labels the method may use."""
        return np.concatenate([self.train, self.val])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the three sets and changed labels: equal only if every pixel is equal."""
        digest = hashlib.sha256()
        for side in (self.train, self.val, self.test):
            digest.update(len(side).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(side, dtype="<i8").data)
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype="<i4").data)
        return digest.hexdigest()

    def to_sides(self, shape: tuple[int, int]) -> SideMap:
        """Returns the partition map `(rows, cols)` with values of `Side`, as `split.partition` reads it."""
        sides = np.full(shape, Side.UNUSED, dtype=np.uint8)
        for side, name in _NAMES.items():
            rows, cols = getattr(self, name).T
            sides[rows, cols] = side
        return sides

    def relabel(self, truth: Truth) -> Truth:
        """Returns a scene with the labels of this split; SplitError if they, or its pixels, are not of this scene."""
        labels = truth.labels if self.labels is None else self.labels
        pixels = np.concatenate([self.training_side, self.test, self.buffer])
        if labels.shape != truth.shape or (pixels >= truth.shape).any() or not labels[tuple(pixels.T)].all():
            raise SplitError(f"split: its pixels are not labelled pixels of {truth.name}; train again")
        return truth if self.labels is None else replace(truth, labels=labels)


def make_split(truth: GroundTruth, settings: config.SplitSettings, *, seed: int = 0, data: Data = None) -> Split:
    """Returns the split described by a config's `split` section, whose own seed takes precedence over `seed`.

    `random` takes `round(fraction × size)` pixels of each class, at least one, or a given number. `blocks` and `fields`
    separate training and test pixels in space (see `sampling.disjoint`), and so does each of the `folds` (see
    `sampling.spatial_folds`), of which the settings name one. `images` tests whole images. `masks` reads both sets
    from files, which are searched for in the folder `data` before `datasets/`, and `all` leaves no test pixel. A
    fraction `validation` of each class's training pixels is set aside for choosing the epoch, except with a partition
    map, which defines its own validation pixels. SplitError if the labels cannot be split as requested, SceneError if
    a mask file cannot be read.
    """
    rng = np.random.default_rng(seed if settings.seed is None else settings.seed)
    labels = numbers = None
    match settings:
        case config.RandomSplit():
            sides, notes = _divide_at_random(truth, settings, rng=rng)
        case config.BlocksSplit():
            sides, notes = divide_by_blocks(truth, settings, rng=rng)
        case config.FieldsSplit():
            sides, notes = divide_by_fields(truth, settings, rng=rng)
        case config.FoldsSplit():
            sides, numbers, notes = divide_by_fold(truth, settings, rng=rng, folders=Folders.of(data))
        case config.ImagesSplit():
            sides, notes = divide_by_image(truth, settings.test), ()
        case config.AllSplit():
            sides, notes = np.where(truth.labels > 0, np.uint8(Side.TRAIN), np.uint8(Side.UNUSED)), ()
        case config.MasksSplit():
            sides, changed, notes = read_masks(truth, settings, folders=Folders.of(data))
            labels = changed if (changed != truth.labels).any() else None
    if not (isinstance(settings, config.MasksSplit) and settings.partition is not None):
        own = truth.labels if labels is None else labels
        for label in np.unique(own[sides == Side.TRAIN]):
            pixels = rng.permutation(np.argwhere((own == label) & (sides == Side.TRAIN)))
            val = pixels[: min(round(settings.validation * len(pixels)), len(pixels) - 1)]  # at least one trains
            sides[val[:, 0], val[:, 1]] = Side.VALIDATION
    train, val, test, buffer = (np.argwhere(sides == side) for side in _NAMES)
    for name, side in (("training", train), ("test", test)):
        if not len(side) and not isinstance(settings, config.AllSplit):
            raise SplitError(f"split: the {name} set is empty; change split.train or split.buffer")
    groups = None if numbers is None else numbers[tuple(test.T)].astype(np.int64)
    return Split(train=train, val=val, test=test, buffer=buffer, labels=labels, groups=groups, notes=notes)


def number_pixels(splits: Sequence[Split], shape: tuple[int, int]) -> NDArray[np.uint8] | NDArray[np.int32]:
    """Returns the partition map `(rows, cols)` of a split; of several folds, the fold from 1 that tests each pixel."""
    if len(splits) == 1:
        return splits[0].to_sides(shape)
    numbers = np.zeros(shape, dtype=np.int32)
    for fold, split in enumerate(splits, start=1):
        numbers[split.test[:, 0], split.test[:, 1]] = fold
    return numbers


def _divide_at_random(
    truth: GroundTruth, settings: config.RandomSplit, *, rng: np.random.Generator
) -> tuple[SideMap, tuple[str, ...]]:
    sides = np.where(truth.labels > 0, np.uint8(Side.TEST), np.uint8(Side.UNUSED))
    rescued = f"too few pixels for split.train = {settings.train}, one pixel is used for training anyway"
    untrained = "split.train.per_class gives no training pixels, so all of them will be classified as another class"
    untested = "every pixel is used for training, so none is left for testing"
    notes: dict[str, list[str]] = {rescued: [], untrained: [], untested: []}  # class names
    counts = settings.train.per_class if isinstance(settings.train, config.PerClass) else None
    if isinstance(counts, dict) and (unknown := sorted(set(counts) - set(truth.class_ids.tolist()))):
        problem = f"labels {', '.join(map(str, unknown))} are not in the scene ({', '.join(map(str, truth.class_ids))})"
        raise SplitError(f"split.train.per_class: {problem}; give counts by label")
    for label in truth.class_ids.tolist():
        name = truth.class_names[label]
        pixels = rng.permutation(np.argwhere(truth.labels == label))
        num_train = _count_train(len(pixels), settings, name=name, label=label)
        if isinstance(settings.train, float) and round(settings.train * len(pixels)) < 1:
            notes[rescued].append(name)
        if not num_train:
            notes[untrained].append(name)
        if num_train == len(pixels):
            notes[untested].append(name)
        rows, cols = pixels[:num_train].T
        sides[rows, cols] = Side.TRAIN
    return sides, tuple(f"{', '.join(names)}: {note}" for note, names in notes.items() if names)


def _count_train(size: int, settings: config.RandomSplit, *, name: str, label: int) -> int:
    if isinstance(settings.train, float):
        # Even with a large fraction, a class of two or more pixels keeps a test pixel.
        return max(1, min(round(settings.train * size), size - 1))
    setting, count, most = "split.train.per_class", settings.train.per_class, size - 1
    if isinstance(count, dict):  # counts by label may leave a class without training or test pixels
        setting, count, most = f"{setting}.{label}", count.get(label, 0), size
    if count > most:
        remedy = f"use at most {most}" if most else "give counts by label, {per_class: {1: 15, …}}"
        problem = f"class {label} ({name}) has {size} labelled pixels, so none would be left for testing"
        raise SplitError(f"{setting} = {count}: {problem}; {remedy}")
    return count
