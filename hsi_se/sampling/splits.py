"""Which labelled pixels train, validate and test; `pixels` are `(n, 2)` of (row, col)."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hsi_se.config import PerClass, RandomSplit
from hsi_se.errors import SplitError
from hsi_se.scene.scene import GroundTruth

Pixels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Three disjoint sets of pixels; the constructor proves them disjoint.

    Attributes:
        train, val, test: `(n, 2)` int64 of (row, col), in ascending order.
        notes: what the user should know about this draw, one sentence each.

    Raises:
        SplitError: a pixel is in two sides.
    """

    train: Pixels
    val: Pixels
    test: Pixels
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        everything = np.concatenate([self.train, self.val, self.test])
        pixels, counts = np.unique(everything, axis=0, return_counts=True)
        if (counts > 1).any():
            row, col = pixels[counts > 1][0]
            raise SplitError(
                f"split: {int((counts > 1).sum())} pixels are in more than one side, the first at "
                f"row {row}, col {col}; give disjoint sides"
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the three sides: two splits share it only if they share every pixel."""
        digest = hashlib.sha256()
        for side in (self.train, self.val, self.test):
            digest.update(len(side).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(side, dtype="<i8").data)
        return digest.hexdigest()


def make_split(truth: GroundTruth, settings: RandomSplit, *, seed: int = 0) -> Split:
    """Returns a stratified random split of the labelled pixels.

    Each class gives `round(fraction × size)` pixels, or a fixed count, to the training side, and at
    least one; a share `validation` of that side is kept for choosing the epoch; the rest is tested.

    Args:
        truth: only its labels and class names are used.
        settings: the config's `split` section; its own seed wins over `seed`.
        seed: the experiment's seed.

    Raises:
        SplitError: a count that leaves a class without a test pixel.
    """
    rng = np.random.default_rng(seed if settings.seed is None else settings.seed)
    sides: dict[str, list[Pixels]] = {"train": [], "val": [], "test": []}
    rescued: list[str] = []
    untested: list[str] = []
    for label in truth.class_ids:
        pixels = rng.permutation(np.argwhere(truth.labels == label))
        num_train = _count_train(len(pixels), settings, name=truth.class_names[label], label=label)
        if isinstance(settings.train, float) and round(settings.train * len(pixels)) < 1:
            rescued.append(truth.class_names[label])
        if num_train == len(pixels):
            untested.append(truth.class_names[label])
        num_val = min(round(settings.validation * num_train), num_train - 1)
        sides["val"].append(pixels[:num_val])
        sides["train"].append(pixels[num_val:num_train])
        sides["test"].append(pixels[num_train:])

    notes = []
    if rescued:
        notes.append(
            f"{', '.join(rescued)}: too few pixels for split.train = {settings.train}, "
            "so one trains all the same"
        )
    if untested:
        notes.append(f"{', '.join(untested)}: the only pixel trains, so none is left to test")
    train, val, test = (_in_order(np.concatenate(parts)) for parts in sides.values())
    if not len(test):
        raise SplitError(f"split.train = {settings.train}: no pixel is left to test; lower it")
    return Split(train=train, val=val, test=test, notes=tuple(notes))


def _count_train(size: int, settings: RandomSplit, *, name: str, label: int) -> int:
    if isinstance(settings.train, PerClass):
        if settings.train.per_class >= size:
            raise SplitError(
                f"split.train.per_class = {settings.train.per_class}: class {label} ({name}) has {size} "
                f"labelled pixels, so none would be left to test; write at most {max(size - 1, 1)}"
            )
        return settings.train.per_class
    # The class that a large fraction would use up keeps a test pixel where it can.
    return max(1, min(round(settings.train * size), size - 1))


def _in_order(pixels: Pixels) -> Pixels:
    return pixels[np.lexsort((pixels[:, 1], pixels[:, 0]))]
