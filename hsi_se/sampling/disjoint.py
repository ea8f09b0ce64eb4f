"""Spatially disjoint splits of a label map, by square blocks or by whole fields.

Both functions return a partition map `(rows, cols)` and notes that name the classes missing from a set.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hsi_se.config.split import BlocksSplit, FieldsSplit
from hsi_se.errors import SplitError
from hsi_se.scene.scene import UNLABELLED, GroundTruth


class Side(IntEnum):
    """The set that a pixel belongs to; the numbers are those of partition maps on disk."""

    UNUSED = 0
    TRAIN = 1
    VALIDATION = 2
    TEST = 3
    BUFFER = 4


SideMap = NDArray[np.uint8]

_RESTARTS = 3
_MOVES_PER_BLOCK = 60
_MIN_MOVES, _MAX_MOVES = 1500, 30000
_RESCUES = 0.3  # fraction of moves that target an absent class, if there is one
_FIRST_TEMPERATURE, _LAST_TEMPERATURE = 0.1, 0.0005
_MAX_OCTAVES = 3.0  # cap on a class's deviation from its share, in factors of 2
_ABSENT = 10.0  # cost of an absent class; exceeds all other terms, which sum to at most 3.5


def divide_by_blocks(
    truth: GroundTruth, settings: BlocksSplit, *, rng: np.random.Generator
) -> tuple[SideMap, tuple[str, ...]]:
    """Splits the labelled pixels by square blocks; returns the partition map and notes.

    Simulated annealing searches for training blocks that leave every class with training and test pixels,
    come close to the fraction `train` of each class and in total, and lose few pixels to the buffer. Test
    pixels closer than `buffer` (Chebyshev distance, in pixels) to a training pixel become buffer pixels.
    Blocks are quartered while they are too coarse for a class: it cannot have both training and test
    pixels, although two of its pixels are `buffer` apart. `rng` determines the blocks' offset too.

    Raises:
        SplitError: no assignment was found that gives any class both training and test pixels.
    """
    buffer = _given(settings.buffer)
    blocks = _Blocks.lay_out(truth, block_size=settings.block_size, buffer=buffer, rng=rng)
    searches = [_anneal(blocks, settings.train, rng) for _ in range(_RESTARTS)]
    _, is_train_block = min(searches, key=lambda found: found[0])
    found = _Search(blocks, settings.train, is_train_block)
    if not ((blocks.count(found.is_train) > 0) & (blocks.count(found.is_test) > 0)).any():
        raise SplitError(
            f"split.buffer = {buffer}: no assignment of blocks of {settings.block_size} pixels gives "
            f"any class both training and test pixels in a scene of {truth.shape[0]} × {truth.shape[1]}; "
            "lower split.buffer"
        )
    sides = np.full(truth.shape, Side.UNUSED, dtype=np.uint8)
    rows, cols = blocks.pixels.T
    sides[rows, cols] = np.select([found.is_train, found.is_test], [Side.TRAIN, Side.TEST], Side.BUFFER)
    return sides, _name_absent(truth, sides)


def divide_by_fields(
    truth: GroundTruth, settings: FieldsSplit, *, rng: np.random.Generator
) -> tuple[SideMap, tuple[str, ...]]:
    """Splits the labelled pixels by connected fields of one class; returns the partition map and notes.

    For each class, random sets of fields are drawn, each leaving a field for training and one for testing, and the set
    closest to the fraction `train` is used. A class with a single field is cut across its long axis, and its test
    pixels closer than `buffer` pixels to its training pixels become buffer pixels. Different fields are not separated
    by a buffer, because neighbouring farms are not either. Pixels of a field are connected by an edge or a corner.
    """
    sides = np.full(truth.shape, Side.UNUSED, dtype=np.uint8)
    numbers = number_fields(truth)
    for label in truth.class_ids:
        is_class = truth.labels == label
        fields = numbers[is_class] - numbers[is_class].min()  # of a class they are consecutive
        sizes = np.bincount(fields)
        if len(sizes) == 1:
            _cut_field(sides, np.argwhere(is_class), settings, rng)
        else:
            is_train = _choose_fields(sizes, settings.train, rng)[fields]
            sides[is_class] = np.where(is_train, Side.TRAIN, Side.TEST)
    return sides, _name_absent(truth, sides)


def number_fields(truth: GroundTruth) -> NDArray[np.int64]:
    """Returns the field of each pixel `(rows, cols)`, from 1; 0 where there is no label."""
    numbers, num_before = np.zeros(truth.shape, dtype=np.int64), 0
    classes = np.searchsorted([UNLABELLED, *truth.class_ids], truth.labels)  # labels may be large
    for place, box in enumerate(ndimage.find_objects(classes), start=1):
        fields, num_fields = ndimage.label(classes[box] == place, structure=np.ones((3, 3)))
        numbers[box] += np.where(fields > 0, fields + num_before, 0)
        num_before += num_fields
    return numbers


def number_blocks(pixels: NDArray[np.int64], *, block_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns the square block `(n,)` of each pixel, from 0; the grid's offset is drawn from `rng`.

    With the generator of a blocks split these are its blocks, before any are quartered.
    """
    squares = (pixels + rng.integers(block_size, size=2)) // block_size
    return np.asarray(np.unique(squares, axis=0, return_inverse=True)[1].reshape(-1))


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The labelled pixels grouped by block, and the pixels that each block's buffer would cover."""

    pixels: NDArray[np.int64]  # (n, 2) of (row, col)
    classes: NDArray[np.int64]  # (n,) class of each pixel, 0..C-1
    sizes: NDArray[np.int64]  # (C,) number of pixels of each class
    block_of: NDArray[np.int64]  # (n,) block of each pixel, 0..B-1
    members: list[NDArray[np.int64]]  # for each block, indices of its pixels in `pixels`
    near: list[NDArray[np.int64]]  # for each block, indices of the pixels outside but within its buffer

    @classmethod
    def lay_out(cls, truth: GroundTruth, *, block_size: int, buffer: int, rng: np.random.Generator) -> "_Blocks":
        pixels = np.argwhere(truth.labels != UNLABELLED)
        classes = np.searchsorted(truth.class_ids, truth.labels[pixels[:, 0], pixels[:, 1]])
        position = np.full(truth.shape, -1)
        position[pixels[:, 0], pixels[:, 1]] = np.arange(len(pixels))
        shifted = pixels + rng.integers(block_size, size=2)
        side = np.full(len(pixels), block_size)  # (n,) side in pixels of each pixel's block
        while True:
            squares = np.column_stack([side, shifted // side[:, None]])
            _, block_of = np.unique(squares, axis=0, return_inverse=True)
            members = np.split(np.argsort(block_of, kind="stable"), np.cumsum(np.bincount(block_of))[:-1])
            near = [_find_near(pixels[inside], position, buffer) for inside in members]
            blocks = cls(pixels, classes, np.bincount(classes), block_of, members, near)
            # Classes that only a few blocks cover may need smaller blocks: quarter those.
            coarse = [
                label
                for label in np.flatnonzero(~blocks.has_hope)
                if np.ptp(pixels[classes == label], axis=0).max() >= max(buffer, 1)
            ]
            is_too_large = np.isin(block_of, block_of[np.isin(classes, coarse)]) & (side > 1)
            if not is_too_large.any():
                return blocks
            side[is_too_large] //= 2

    @cached_property
    def has_hope(self) -> NDArray[np.bool_]:
        """Returns `(C,)`, true for classes that keep test pixels when one of their blocks trains."""
        inside = np.array([self.count(pixels) for pixels in self.members])  # (B, C)
        near = np.array([self.count(pixels) for pixels in self.near])
        return np.asarray(((inside > 0) & (inside + near < self.sizes)).any(axis=0))

    def count(self, pixels: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns `(C,)`, the number of selected pixels by class; `pixels` are indices or a mask."""
        return np.bincount(self.classes[pixels], minlength=len(self.sizes))


def _find_near(inside: NDArray[np.int64], position: NDArray[np.int64], buffer: int) -> NDArray[np.int64]:
    """Returns `(k,)` indices of labelled pixels outside `inside` but closer than `buffer` to it."""
    if buffer == 0:
        return np.empty(0, dtype=np.int64)
    low = np.maximum(inside.min(axis=0) - buffer + 1, 0)
    high = inside.max(axis=0) + buffer
    window = position[low[0] : high[0], low[1] : high[1]]
    is_inside = np.zeros(window.shape, dtype=bool)
    is_inside[inside[:, 0] - low[0], inside[:, 1] - low[1]] = True
    reach = ndimage.maximum_filter(is_inside, size=2 * buffer - 1, mode="constant")
    return window[reach & ~is_inside & (window >= 0)]


class _Search:
    """A set of training blocks, with pixel counts that are updated as blocks change sets."""

    def __init__(self, blocks: _Blocks, share: float, is_train_block: NDArray[np.bool_]) -> None:
        self.blocks, self.share = blocks, share
        self.is_train_block = np.zeros(len(blocks.members), dtype=bool)  # (B,)
        self.is_train = np.zeros(len(blocks.pixels), dtype=bool)  # (n,)
        self.cover = np.zeros(len(blocks.pixels), dtype=np.int32)  # (n,) training blocks that buffer a pixel
        self._num_train, self._num_test = np.zeros_like(blocks.sizes), blocks.sizes.copy()
        for block in np.flatnonzero(is_train_block):
            self.flip(int(block))

    @property
    def is_test(self) -> NDArray[np.bool_]:
        return np.asarray(~self.is_train & (self.cover == 0))

    def flip(self, block: int) -> None:
        """Moves a block from training to test, or back."""
        inside, near = self.blocks.members[block], self.blocks.near[block]
        step = -1 if self.is_train_block[block] else 1
        free_inside = self.blocks.count(inside[self.cover[inside] == 0])
        if step < 0:
            self.cover[near] -= 1
        free_near = self.blocks.count(near[(self.cover[near] == 0) & ~self.is_train[near]])
        if step > 0:
            self.cover[near] += 1
        self._num_train += step * self.blocks.count(inside)
        self._num_test -= step * (free_inside + free_near)
        self.is_train[inside] = step > 0
        self.is_train_block[block] = step > 0

    def find_one_sided(self) -> NDArray[np.int64]:
        """Returns the classes that lack training or test pixels but could have both."""
        is_one_sided = (self._num_train == 0) | (self._num_test == 0)
        return np.flatnonzero(is_one_sided & self.blocks.has_hope)

    def rescue(self, label: int, rng: np.random.Generator) -> list[int]:
        """Gives a class a training block and a test pixel; returns the blocks that were flipped."""
        blocks = self.blocks
        train = int(rng.choice(blocks.block_of[blocks.classes == label]))
        is_testable = blocks.classes == label  # if that block trains
        is_testable[blocks.members[train]] = is_testable[blocks.near[train]] = False
        if not is_testable.any():
            return []
        test = rng.choice(np.flatnonzero(is_testable))
        changed = [
            int(block)
            for block in np.flatnonzero(self.is_train_block)
            if block == blocks.block_of[test] or test in blocks.near[block]
        ]
        if not self.is_train_block[train]:
            changed.append(train)
        for block in changed:
            self.flip(block)
        return changed

    @property
    def cost(self) -> float:
        """Cost to minimise: absent classes, deviation from the fractions, and pixels lost to the buffer."""
        num_train, num_test, sizes = self._num_train, self._num_test, self.blocks.sizes
        total = int(sizes.sum())
        is_untrained = num_train == 0
        one_sided = np.count_nonzero(is_untrained | (num_test == 0))
        # A class without training pixels is worse than one without test pixels: it is always misclassified.
        absent = one_sided + np.count_nonzero(is_untrained) / (len(sizes) + 1)
        # Logarithmic: a tenth of the share is as bad as ten times the share.
        with np.errstate(divide="ignore"):
            octaves = np.abs(np.log2(num_train / sizes / self.share))
        by_class = np.minimum(octaves, _MAX_OCTAVES).sum() / len(sizes) / _MAX_OCTAVES
        in_all = abs(num_train.sum() / total - self.share)
        lost = 1 - (num_train.sum() + num_test.sum()) / total
        return float(_ABSENT * absent + by_class + 2 * in_all + 0.5 * lost)


def _anneal(blocks: _Blocks, share: float, rng: np.random.Generator) -> tuple[float, NDArray[np.bool_]]:
    """Returns the lowest cost found by simulated annealing, and its training blocks `(B,)`."""
    num_blocks = len(blocks.members)
    search = _Search(blocks, share, rng.random(num_blocks) < share)
    num_moves = int(np.clip(_MOVES_PER_BLOCK * num_blocks, _MIN_MOVES, _MAX_MOVES))
    current = best = search.cost
    best_blocks = search.is_train_block.copy()
    for temperature in np.geomspace(_FIRST_TEMPERATURE, _LAST_TEMPERATURE, num_moves):
        one_sided = search.find_one_sided()
        if len(one_sided) and rng.random() < _RESCUES:
            moved = search.rescue(int(rng.choice(one_sided)), rng)
        else:
            moved = [int(rng.integers(num_blocks))]
            search.flip(moved[0])
        changed = search.cost
        if changed <= current or rng.random() < np.exp((current - changed) / temperature):
            current = changed
            if current < best:
                best, best_blocks = current, search.is_train_block.copy()
        else:
            for block in moved:
                search.flip(block)
    return best, best_blocks


def _choose_fields(sizes: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Returns `(f,)`, true for training fields: the closest to the share of 100 random sets."""
    best, best_error = np.empty(0, dtype=np.int64), np.inf
    for _ in range(100):
        order = rng.permutation(len(sizes))
        error = np.abs(np.cumsum(sizes[order])[:-1] - share * sizes.sum())
        if error.min() < best_error:
            best, best_error = order[: error.argmin() + 1], error.min()
    return np.isin(np.arange(len(sizes)), best)


def _cut_field(sides: SideMap, pixels: NDArray[np.int64], settings: FieldsSplit, rng: np.random.Generator) -> None:
    """Assigns one end of a field's long axis to training, and the rest to test or buffer, in place."""
    centred = pixels - pixels.mean(axis=0)
    long_axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    along = centred @ long_axis * rng.choice([-1, 1])
    num_train = int(np.clip(round(settings.train * len(pixels)), 1, max(len(pixels) - 1, 1)))
    order = np.argsort(along, kind="stable")
    train, rest = pixels[order[:num_train]], pixels[order[num_train:]]
    sides[train[:, 0], train[:, 1]] = Side.TRAIN
    if not len(rest):
        return
    away = np.ones(sides.shape, dtype=bool)
    away[train[:, 0], train[:, 1]] = False
    distance = ndimage.distance_transform_cdt(away, metric="chessboard")[rest[:, 0], rest[:, 1]]
    sides[rest[:, 0], rest[:, 1]] = np.where(distance < _given(settings.buffer), Side.BUFFER, Side.TEST)


def _name_absent(truth: GroundTruth, sides: SideMap) -> tuple[str, ...]:
    """Returns a note for each set that lacks classes, with their names."""
    notes = []
    for side, what in ((Side.TRAIN, "training"), (Side.TEST, "test")):
        absent = np.setdiff1d(truth.class_ids, truth.labels[sides == side]).tolist()
        if absent:
            names = ", ".join(truth.class_names[label] for label in absent)
            notes.append(f"no {what} pixels with this buffer for {names}")
    return tuple(notes)


def _given(buffer: int | None) -> int:
    if buffer is None:
        remedy = "give the distance between training and test pixels, such as the patch size"
        raise SplitError(f"split.buffer: is missing; {remedy}")
    return buffer
