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
from hsi_se.scene.raster import chunk_rows
from hsi_se.scene.scene import UNLABELLED, GroundTruth


class Side(IntEnum):
    """The set that a pixel belongs to; the numbers are those of partition maps on disk."""

    UNUSED = 0
    TRAIN = 1
    VALIDATION = 2
    TEST = 3
    BUFFER = 4


SideMap = NDArray[np.uint8]

_STARTS, _KICKS = 40, 10  # of the search for training blocks
_MAX_OCTAVES = 3.0  # cap on a class's deviation from its share, in factors of 2
_ABSENT = 10.0  # cost of an absent class; exceeds all other terms, which sum to at most 3.1


def divide_by_blocks(
    truth: GroundTruth, settings: BlocksSplit, *, rng: np.random.Generator
) -> tuple[SideMap, tuple[str, ...]]:
    """Splits the labelled pixels by square blocks; returns the partition map and notes.

    Iterated local search looks for training blocks that leave every class with training and test pixels,
    come close to the fraction `train` of each class and in total, and lose few pixels to the buffer. Test
    pixels closer than `buffer` (Chebyshev distance, in pixels) to a training pixel become buffer pixels.
    Blocks are quartered while they are too coarse for a class: it cannot have both training and test
    pixels, although two of its pixels are `buffer` apart. `rng` determines the blocks' offset too. SplitError if no
    assignment was found that gives any class both training and test pixels.
    """
    buffer = _given(settings.buffer)
    blocks = _Blocks.lay_out(truth, block_size=settings.block_size, buffer=buffer, rng=rng)
    is_train_block = _choose_blocks(blocks, settings.train, rng)
    is_train, is_test = is_train_block[blocks.block_of], blocks.count_reaching(is_train_block) == 0
    if not np.intersect1d(blocks.classes[is_train], blocks.classes[is_test]).size:
        missing = f"any class both training and test pixels in a scene of {truth.shape[0]} × {truth.shape[1]}"
        problem = f"no assignment of blocks of {settings.block_size} pixels gives {missing}"
        raise SplitError(f"split.buffer = {buffer}: {problem}; lower split.buffer")
    sides = np.full(truth.shape, Side.UNUSED, dtype=np.uint8)
    rows, cols = blocks.pixels.T
    sides[rows, cols] = np.select([is_train, is_test], [Side.TRAIN, Side.TEST], Side.BUFFER)[blocks.part_of]
    return sides, _name_absent(truth, sides)


def divide_by_fields(
    truth: GroundTruth, settings: FieldsSplit, *, rng: np.random.Generator
) -> tuple[SideMap, tuple[str, ...]]:
    """Splits the labelled pixels by fields of one class, see `number_fields`; returns the partition map and notes.

    For each class, random sets of fields are drawn, each leaving a field for training and one for testing, and the set
    closest to the fraction `train` is used. A class with a single field is cut across its long axis, and its test
    pixels closer than `buffer` pixels to its training pixels become buffer pixels. Different fields are not separated
    by a buffer, because neighbouring farms are not either.
    """
    sides = np.full(truth.shape, Side.UNUSED, dtype=np.uint8)
    numbers = number_fields(truth)
    for label in truth.class_ids:
        is_class = truth.labels == label
        fields = np.unique(numbers[is_class], return_inverse=True)[1].reshape(-1)
        sizes = np.bincount(fields)
        if len(sizes) == 1:
            _cut_field(sides, np.argwhere(is_class), settings, rng)
        else:
            is_train = _choose_fields(sizes, settings.train, rng)[fields]
            sides[is_class] = np.where(is_train, Side.TRAIN, Side.TEST)
    return sides, _name_absent(truth, sides)


def number_fields(truth: GroundTruth) -> NDArray[np.int32]:
    """Returns the field of each pixel `(rows, cols)`, from 1; 0 where there is no label.

    A field is a polygon that was drawn, or pixels of one class outside of polygons that share an edge or a corner.
    """
    numbers, classes = np.zeros(truth.shape, np.int32), np.zeros(truth.shape, np.uint16)
    if truth.polygons is not None:
        numbers = np.where(truth.labels == UNLABELLED, np.int32(0), truth.polygons)
    num_before = int(numbers.max())
    for part in chunk_rows(len(numbers)):  # labels may be large
        others = np.where(numbers[part] > 0, UNLABELLED, truth.labels[part])
        classes[part] = np.searchsorted([UNLABELLED, *truth.class_ids], others)
    for place, box in enumerate(ndimage.find_objects(classes), start=1):
        fields, num_fields = ndimage.label(classes[box] == place, structure=np.ones((3, 3)))
        numbers[box][fields > 0] += fields[fields > 0] + num_before
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
    """The labelled pixels grouped by block, and in parts: pixels of one block and class that share their fate.

    A block reaches its own pixels and those within its buffer: if it trains, none of them can be tested. The same
    blocks reach all pixels of a part.
    """

    pixels: NDArray[np.int64]  # (n, 2) of (row, col)
    part_of: NDArray[np.int64]  # (n,) part of each pixel, 0..m-1
    num_pixels: NDArray[np.int64]  # (m,) of each part
    classes: NDArray[np.int64]  # (m,) class of each part, 0..C-1
    block_of: NDArray[np.int64]  # (m,) block of each part, 0..B-1
    reaching: NDArray[np.int64]  # (k,) the block of each pair of a block and a part that it reaches
    reached: NDArray[np.int64]  # (k,) the part of each pair

    @classmethod
    def lay_out(cls, truth: GroundTruth, *, block_size: int, buffer: int, rng: np.random.Generator) -> "_Blocks":
        pixels = np.argwhere(truth.labels != UNLABELLED)
        classes = np.searchsorted(truth.class_ids, truth.labels[pixels[:, 0], pixels[:, 1]])
        shifted = pixels + rng.integers(block_size, size=2)
        side = np.full(len(pixels), block_size)  # (n,) side in pixels of each pixel's block
        while True:
            squares = np.column_stack([side, shifted // side[:, None]])
            block_of = np.unique(squares, axis=0, return_inverse=True)[1].reshape(-1)
            reaching, reached = _find_reached(truth.shape, pixels, block_of, buffer)
            which = np.bincount(reached, rng.random(len(pixels))[reaching])  # a sum of random numbers tells sets apart
            _, first, part_of, num_pixels = np.unique(
                np.column_stack([block_of, classes, which]), axis=0,
                return_index=True, return_inverse=True, return_counts=True,
            )  # fmt: skip
            kept, part_of = np.isin(reached, first), part_of.reshape(-1)
            pairs = reaching[kept], part_of[reached[kept]]
            blocks = cls(pixels, part_of, num_pixels, classes[first], block_of[first], *pairs)
            is_divisible = (blocks.inside > 0) & (blocks.count(*pairs) < blocks.sizes)
            # Classes that only a few blocks cover may need smaller blocks: quarter those.
            coarse = [
                label
                for label in np.flatnonzero(~is_divisible.any(axis=0))
                if np.ptp(pixels[classes == label], axis=0).max() >= max(buffer, 1)
            ]
            is_too_large = np.isin(block_of, block_of[np.isin(classes, coarse)]) & (side > 1)
            if not is_too_large.any():
                return blocks
            side[is_too_large] //= 2

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """Returns the number of pixels of each class, `(C,)`."""
        return np.asarray(np.bincount(self.classes, self.num_pixels), dtype=np.float64)

    @cached_property
    def inside(self) -> NDArray[np.float64]:
        """Returns the number of pixels of each class in each block, `(B, C)`."""
        return self.count(self.block_of, np.arange(len(self.classes)))

    def count(self, blocks: NDArray[np.int64], parts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns `(B, C)`, how many pixels some pairs of a block and a part have of each block and class."""
        shape = int(self.block_of.max()) + 1, len(self.sizes)
        cells = np.bincount(blocks * shape[1] + self.classes[parts], self.num_pixels[parts], shape[0] * shape[1])
        return np.asarray(cells, dtype=np.float64).reshape(shape)

    def count_reaching(self, is_train: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns `(m,)`, how many of the training blocks reach each part; it is tested if none does."""
        return np.bincount(self.reached[is_train[self.reaching]], minlength=len(self.classes))


def _find_reached(
    shape: tuple[int, int], pixels: NDArray[np.int64], block_of: NDArray[np.int64], buffer: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the pairs of a block and a pixel in it or closer to its pixels than `buffer`."""
    place, margin = np.full(shape, -1), max(buffer - 1, 0)
    place[pixels[:, 0], pixels[:, 1]] = np.arange(len(pixels))
    reached = []
    for block in range(block_of.max() + 1):
        inside = pixels[block_of == block]
        low, high = np.maximum(inside.min(axis=0) - margin, 0), inside.max(axis=0) + margin + 1
        window = place[low[0] : high[0], low[1] : high[1]]
        is_reached = np.zeros(window.shape, dtype=bool)
        is_reached[inside[:, 0] - low[0], inside[:, 1] - low[1]] = True
        is_reached = ndimage.maximum_filter(is_reached, size=2 * margin + 1, mode="constant")
        reached.append(window[is_reached & (window >= 0)])
    return np.repeat(np.arange(len(reached)), [len(each) for each in reached]), np.concatenate(reached)


def _choose_blocks(blocks: _Blocks, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Returns the training blocks `(B,)` of the lowest cost found by iterated local search.

    From each of some random sets, most of them small, descents alternate with kicks. A kick gives a class a
    training pixel and a test pixel, whatever it costs the others. It is undone if the descent after it ends higher.
    """
    found = []
    for _ in range(_STARTS):
        best, is_train = _descend(blocks, share, rng.random(len(blocks.inside)) < share * rng.random() ** 2)
        for _ in range(_KICKS):
            of_class = np.flatnonzero(blocks.classes == rng.integers(len(blocks.sizes)))
            train, test = rng.choice(of_class, size=2)
            kicked = is_train.copy()
            kicked[blocks.reaching[blocks.reached == test]] = False
            kicked[blocks.block_of[train]] = True
            cost, kicked = _descend(blocks, share, kicked)
            if cost <= best:
                best, is_train = cost, kicked
        found.append((best, is_train))
    return min(found, key=lambda each: each[0])[1]


def _descend(blocks: _Blocks, share: float, is_train: NDArray[np.bool_]) -> tuple[float, NDArray[np.bool_]]:
    """Moves the block that lowers the cost most between training and test until none does; returns the cost too."""
    best, is_train = np.inf, is_train.copy()
    while True:
        num_reaching = blocks.count_reaching(is_train)
        # The parts that are tested, or not, because of a single block.
        is_decided = num_reaching[blocks.reached] == is_train[blocks.reaching]
        decided = blocks.count(blocks.reaching[is_decided], blocks.reached[is_decided])
        step = np.where(is_train, -1, 1)[:, None]
        is_test = num_reaching == 0
        num_test = np.bincount(blocks.classes[is_test], blocks.num_pixels[is_test], minlength=len(blocks.sizes))
        costs = _rate(is_train @ blocks.inside + step * blocks.inside, num_test - step * decided, blocks.sizes, share)
        if costs.min() >= best:
            return best, is_train
        best = float(costs.min())
        is_train[costs.argmin()] ^= True


def _rate(
    num_train: NDArray[np.float64], num_test: NDArray[np.float64], sizes: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Returns a cost per row of `(B, C)` pixels: absent classes, deviation from the fractions, pixels in the buffer."""
    is_untrained = num_train == 0
    # A class without training pixels is worse than one without test pixels: it is always misclassified.
    absent = (is_untrained | (num_test == 0)).sum(axis=1) + is_untrained.sum(axis=1) / (len(sizes) + 1)
    # Logarithmic: a tenth of the share is as bad as ten times the share.
    with np.errstate(divide="ignore"):
        octaves = np.abs(np.log2(num_train / sizes / share))
    by_class = np.minimum(octaves, _MAX_OCTAVES).mean(axis=1) / _MAX_OCTAVES
    in_all = np.abs(num_train.sum(axis=1) / sizes.sum() - share)
    lost = 1 - (num_train + num_test).sum(axis=1) / sizes.sum()
    return np.asarray(_ABSENT * absent + by_class + 2 * in_all + 0.1 * lost)


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
