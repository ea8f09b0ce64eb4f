"""Which labelled pixels train, validate and test; `pixels` are `(n, 2)` of (row, col)."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.split import BlocksSplit, FieldsSplit, MasksSplit, PerClass, RandomSplit, SplitSettings
from hsi_se.errors import SplitError
from hsi_se.sampling.disjoint import Side, SideMap, divide_by_blocks, divide_by_fields
from hsi_se.sampling.masks import read_masks
from hsi_se.scene.loading import list_roots
from hsi_se.scene.scene import GroundTruth

Pixels = NDArray[np.int64]
Truth = TypeVar("Truth", bound=GroundTruth)


def _no_pixels() -> Pixels:
    return np.empty((0, 2), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint sets of pixels; the constructor proves them disjoint.

    Attributes:
        train, val, test: `(n, 2)` int64 of (row, col), in ascending order.
        buffer: labelled pixels that no side may use, because they lie too near the other one.
        labels: `(rows, cols)` the label map to go by, where masks from files have changed the scene's.
        notes: what the user should know about this draw, one sentence each.

    Raises:
        SplitError: a pixel is in two sides, or a side that needs pixels has none.
    """

    train: Pixels
    val: Pixels
    test: Pixels
    buffer: Pixels = field(default_factory=_no_pixels)
    labels: NDArray[np.int32] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        everything = np.concatenate([self.train, self.val, self.test, self.buffer])
        pixels, counts = np.unique(everything, axis=0, return_counts=True)
        if (counts > 1).any():
            row, col = pixels[counts > 1][0]
            raise SplitError(
                f"split: {int((counts > 1).sum())} pixels are in more than one side, the first at "
                f"row {row}, col {col}; give disjoint sides"
            )
        for name, side in (("train", self.train), ("test", self.test)):
            if not len(side):
                raise SplitError(f"split: no {name} pixel is left; change split.train or split.buffer")

    @cached_property
    def training_side(self) -> Pixels:
        """`(n, 2)` every pixel whose label the method may look at: training and validation pixels."""
        return np.concatenate([self.train, self.val])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the sides and changed labels: splits share it only if they share every pixel."""
        digest = hashlib.sha256()
        for side in (self.train, self.val, self.test):
            digest.update(len(side).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(side, dtype="<i8").data)
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype="<i4").data)
        return digest.hexdigest()

    def to_sides(self, shape: tuple[int, int]) -> SideMap:
        """Returns the partition map `(rows, cols)`, as `split.partition` reads it back."""
        sides = np.full(shape, Side.UNUSED, dtype=np.uint8)
        for side, pixels in (
            (Side.TRAIN, self.train),
            (Side.VALIDATION, self.val),
            (Side.TEST, self.test),
            (Side.BUFFER, self.buffer),
        ):
            sides[pixels[:, 0], pixels[:, 1]] = side
        return sides

    def relabel(self, truth: Truth) -> Truth:
        """Returns the scene with the labels that this split goes by."""
        return truth if self.labels is None else replace(truth, labels=self.labels)


def make_split(
    truth: GroundTruth, settings: SplitSettings, *, seed: int = 0, data: str | Path | None = None
) -> Split:
    """Returns the split that a config's `split` section describes.

    `random` takes `round(fraction × size)` pixels of each class, or a fixed count, and at least one;
    `blocks` and `fields` keep the sides apart (see `sampling.disjoint`); `masks` reads them from
    files. A share `validation` of each class of the training side is kept for choosing the epoch, but
    for a partition map, which says itself what validates.

    Args:
        truth: a scene, or its labels alone.
        settings: the config's `split` section; its own seed wins over `seed`.
        seed: the experiment's seed.
        data: where mask files are looked for before `datasets/`.

    Raises:
        SplitError: the labels cannot be divided as asked.
        SceneError: a mask file cannot be read.
    """
    rng = np.random.default_rng(seed if settings.seed is None else settings.seed)
    labels = None
    match settings:
        case RandomSplit():
            sides, notes = _divide_at_random(truth, settings, rng=rng)
        case BlocksSplit():
            sides, notes = divide_by_blocks(truth, settings, rng=rng)
        case FieldsSplit():
            sides, notes = divide_by_fields(truth, settings, rng=rng)
        case MasksSplit():
            sides, changed, notes = read_masks(truth, settings, roots=list_roots(data))
            labels = changed if (changed != truth.labels).any() else None
    if not (isinstance(settings, MasksSplit) and settings.partition is not None):
        _set_validation_apart(sides, truth.labels if labels is None else labels, settings.validation, rng)
    return _split_of(sides, labels=labels, notes=notes)


def count_training_side(truth: GroundTruth, split: Split) -> dict[int, int]:
    """Returns the training and validation pixels of each label that has any, as `per_class` takes them."""
    side = split.training_side
    labels, counts = np.unique(truth.labels[side[:, 0], side[:, 1]], return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def _split_of(sides: SideMap, *, labels: NDArray[np.int32] | None, notes: tuple[str, ...]) -> Split:
    train, val, test, buffer = (
        np.argwhere(sides == side) for side in (Side.TRAIN, Side.VALIDATION, Side.TEST, Side.BUFFER)
    )
    return Split(train=train, val=val, test=test, buffer=buffer, labels=labels, notes=notes)


def _divide_at_random(
    truth: GroundTruth, settings: RandomSplit, *, rng: np.random.Generator
) -> tuple[SideMap, tuple[str, ...]]:
    sides = np.where(truth.labels > 0, Side.TEST, Side.UNUSED).astype(np.uint8)
    rescued: list[str] = []
    untrained: list[str] = []
    untested: list[str] = []
    if isinstance(settings.train, PerClass):
        _check_labels(truth, settings.train)
    for label in truth.class_ids.tolist():
        pixels = rng.permutation(np.argwhere(truth.labels == label))
        num_train = _count_train(len(pixels), settings, name=truth.class_names[label], label=label)
        if isinstance(settings.train, float) and round(settings.train * len(pixels)) < 1:
            rescued.append(truth.class_names[label])
        if not num_train:
            untrained.append(truth.class_names[label])
        if num_train == len(pixels):
            untested.append(truth.class_names[label])
        train = pixels[:num_train]
        sides[train[:, 0], train[:, 1]] = Side.TRAIN

    notes = []
    if rescued:
        notes.append(
            f"{', '.join(rescued)}: too few pixels for split.train = {settings.train}, "
            "so one trains all the same"
        )
    if untrained:
        notes.append(
            f"{', '.join(untrained)}: split.train.per_class names no training pixel, so all of them will be "
            "called something else"
        )
    if untested:
        notes.append(f"{', '.join(untested)}: every pixel trains, so none is left to test")
    return sides, tuple(notes)


def _check_labels(truth: GroundTruth, counts: PerClass) -> None:
    if isinstance(counts.per_class, dict):
        unknown = sorted(set(counts.per_class) - set(truth.class_ids.tolist()))
        if unknown:
            raise SplitError(
                f"split.train.per_class: labels {', '.join(map(str, unknown))} are none of the scene's "
                f"({', '.join(map(str, truth.class_ids))}); give counts by label"
            )


def _count_train(size: int, settings: RandomSplit, *, name: str, label: int) -> int:
    if isinstance(settings.train, float):
        # The class that a large fraction would use up keeps a test pixel where it can.
        return max(1, min(round(settings.train * size), size - 1))
    setting, count, most = "split.train.per_class", settings.train.per_class, size - 1
    if isinstance(count, dict):  # who counts label by label may leave a class out, on either side
        setting, count, most = f"{setting}.{label}", count.get(label, 0), size
    if count > most:
        remedy = f"write at most {most}" if most else "give counts by label, {per_class: {1: 15, …}}"
        raise SplitError(
            f"{setting} = {count}: class {label} ({name}) has {size} labelled pixels, so none would be left "
            f"to test; {remedy}"
        )
    return count


def _set_validation_apart(
    sides: SideMap, labels: NDArray[np.int32], share: float, rng: np.random.Generator
) -> None:
    """Turns a share of each class's training pixels into validation pixels; one always trains."""
    for label in np.unique(labels[sides == Side.TRAIN]):
        pixels = rng.permutation(np.argwhere((labels == label) & (sides == Side.TRAIN)))
        val = pixels[: min(round(share * len(pixels)), len(pixels) - 1)]
        sides[val[:, 0], val[:, 1]] = Side.VALIDATION
