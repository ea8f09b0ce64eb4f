"""Dividing a label map so that the two sides lie apart: by square blocks, or by whole fields.

Both return a map `(rows, cols)` of sides and the names of the classes that one side has to do without.
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
    """What a pixel is used for; the numbers are those of a partition map on disk."""

    UNUSED = 0
    TRAIN = 1
    VALIDATION = 2
    TEST = 3
    BUFFER = 4


SideMap = NDArray[np.uint8]

_RESTARTS = 3
_MOVES_PER_BLOCK = 60
_MIN_MOVES, _MAX_MOVES = 1500, 30000
_RESCUES = 0.3  # share of the moves that serve an absent class, while there is one
_FIRST_TEMPERATURE, _LAST_TEMPERATURE = 0.1, 0.0005
_MAX_OCTAVES = 3.0  # a class's share can be off by this many doublings before it is all the same
_ABSENT = 10.0  # the cost of an absent class: more than all else together, which is at most 3.5


def divide_by_blocks(
    truth: GroundTruth, settings: BlocksSplit, *, rng: np.random.Generator
) -> tuple[SideMap, tuple[str, ...]]:
    """Returns the sides of every labelled pixel, with square blocks as the unit.

    Simulated annealing looks for the set of training blocks that leaves no class without training or
    test pixels, comes close to `train` of every class and of all, and loses few pixels to the buffer.
    Test pixels nearer than `buffer` (Chebyshev) to a training pixel become the buffer. Blocks that cut
    a class too coarsely to have it on both sides, though two of its pixels lie `buffer` apart, are
    quartered until they do not.

    Args:
        truth: the labels.
        settings: `train` is the share of each class; `buffer` is given.
        rng: decides the blocks' offset, the start and the moves.

    Raises:
        SplitError: no assignment found leaves any class on both sides.
    """
    buffer = _given(settings.buffer)
    blocks = _Blocks.lay_out(truth, block_size=settings.block_size, buffer=buffer, rng=rng)
    searches = [_anneal(blocks, settings.train, rng) for _ in range(_RESTARTS)]
    _, is_train_block = min(searches, key=lambda found: found[0])
    found = _Search(blocks, settings.train, is_train_block)
    if not ((blocks.count(found.is_train) > 0) & (blocks.count(found.is_test) > 0)).any():
        raise SplitError(
            f"split.buffer = {buffer}: no assignment of blocks of {settings.block_size} pixels leaves a "
            f"class on both sides of a scene of {truth.shape[0]} × {truth.shape[1]}; "
            "lower split.buffer"
        )
    sides = np.full(truth.shape, Side.UNUSED, dtype=np.uint8)
    rows, cols = blocks.pixels.T
    sides[rows, cols] = np.select([found.is_train, found.is_test], [Side.TRAIN, Side.TEST], Side.BUFFER)
    return sides, _name_absent(truth, sides)


def divide_by_fields(
    truth: GroundTruth, settings: FieldsSplit, *, rng: np.random.Generator
) -> tuple[SideMap, tuple[str, ...]]:
    """Returns the sides of every labelled pixel, with connected fields of one class as the unit.

    Of each class, the set of fields is taken that comes closest to `train` of its pixels, among random
    ones with a field on each side. A class with a single field is cut across its long axis, and the
    test pixels nearer than `buffer` to the cut-off training pixels become the buffer; other fields
    keep no distance, as neighbouring farms do not.

    Args:
        truth: the labels; fields touch at an edge or a corner.
        settings: `train` is the share of each class; `buffer` is given.
        rng: decides among the sets of fields, and which end is cut off.
    """
    sides = np.full(truth.shape, Side.UNUSED, dtype=np.uint8)
    for label in truth.class_ids:
        fields, num_fields = ndimage.label(truth.labels == label, structure=np.ones((3, 3)))
        if num_fields == 1:
            _cut_field(sides, np.argwhere(fields == 1), settings, rng)
            continue
        sizes = np.bincount(fields.ravel(), minlength=num_fields + 1)[1:]
        is_train = _choose_fields(sizes, settings.train, rng)
        lookup = np.concatenate([[Side.UNUSED], np.where(is_train, Side.TRAIN, Side.TEST)]).astype(np.uint8)
        sides += lookup[fields]
    return sides, _name_absent(truth, sides)


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The labelled pixels by block, with what each block would take from the other side.

    Attributes:
        pixels: `(n, 2)` labelled pixels.
        classes: `(n,)` their class, 0..C-1.
        sizes: `(C,)` pixels of each class.
        block_of: `(n,)` their block, 0..B-1.
        members: B times `(m,)` the pixels of a block, as positions in `pixels`.
        near: B times `(k,)` the pixels outside it that lie nearer than the buffer to one in it.
        has_hope: `(C,)` which classes at least one block, when it trains, leaves on both sides.
    """

    pixels: NDArray[np.int64]
    classes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    block_of: NDArray[np.int64]
    members: list[NDArray[np.int64]]
    near: list[NDArray[np.int64]]

    @classmethod
    def lay_out(
        cls, truth: GroundTruth, *, block_size: int, buffer: int, rng: np.random.Generator
    ) -> "_Blocks":
        pixels = np.argwhere(truth.labels != UNLABELLED)
        classes = np.searchsorted(truth.class_ids, truth.labels[pixels[:, 0], pixels[:, 1]])
        position = np.full(truth.shape, -1)
        position[pixels[:, 0], pixels[:, 1]] = np.arange(len(pixels))
        shifted = pixels + rng.integers(block_size, size=2)
        side = np.full(len(pixels), block_size)  # (n,) side of the square that each pixel lies in
        while True:
            squares = np.column_stack([side, shifted // side[:, None]])
            _, block_of = np.unique(squares, axis=0, return_inverse=True)
            members = np.split(np.argsort(block_of, kind="stable"), np.cumsum(np.bincount(block_of))[:-1])
            near = [_find_near(pixels[inside], position, buffer) for inside in members]
            blocks = cls(pixels, classes, np.bincount(classes), block_of, members, near)
            # Blocks cut a class that fits into a few of them too coarsely: quarter those.
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
        has_hope = np.zeros(len(self.sizes), dtype=bool)
        for inside, near in zip(self.members, self.near, strict=True):
            num_inside = self.count(inside)
            has_hope |= (num_inside > 0) & (num_inside + self.count(near) < self.sizes)
        return has_hope

    def count(self, pixels: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
        """`(C,)` pixels of each class among some, given by position or by mask."""
        return np.bincount(self.classes[pixels], minlength=len(self.sizes))


def _find_near(inside: NDArray[np.int64], position: NDArray[np.int64], buffer: int) -> NDArray[np.int64]:
    """`(k,)` positions of the labelled pixels nearer than the buffer to some, which are not among them."""
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
    """A set of training blocks, and the counts that follow from it as blocks change sides.

    Attributes:
        is_train_block: `(B,)`.
        is_train: `(n,)` the pixels of training blocks.
        cover: `(n,)` how many training blocks each pixel is near to; without one, it can be tested.
    """

    def __init__(self, blocks: _Blocks, share: float, is_train_block: NDArray[np.bool_]) -> None:
        self.blocks, self.share = blocks, share
        self.is_train_block = np.zeros(len(blocks.members), dtype=bool)
        self.is_train = np.zeros(len(blocks.pixels), dtype=bool)
        self.cover = np.zeros(len(blocks.pixels), dtype=np.int32)
        self._num_train, self._num_test = np.zeros_like(blocks.sizes), blocks.sizes.copy()
        for block in np.flatnonzero(is_train_block):
            self.flip(int(block))

    @property
    def is_test(self) -> NDArray[np.bool_]:
        is_test: NDArray[np.bool_] = ~self.is_train & (self.cover == 0)
        return is_test

    def flip(self, block: int) -> None:
        """Moves a block to the other side."""
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
        """The classes without training or without test pixels, though there is hope for them."""
        is_one_sided = (self._num_train == 0) | (self._num_test == 0)
        return np.flatnonzero(is_one_sided & self.blocks.has_hope)

    def rescue(self, label: int, rng: np.random.Generator) -> list[int]:
        """Gives a class a training block and a test pixel; returns the blocks that changed sides."""
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
        """Absent classes first, then the shares by class and in all, then what the buffer takes."""
        num_train, num_test, sizes = self._num_train, self._num_test, self.blocks.sizes
        total = int(sizes.sum())
        is_untrained = num_train == 0
        one_sided = np.count_nonzero(is_untrained | (num_test == 0))
        # Of two classes on one side, the untrained one is worse: it cannot be right.
        absent = one_sided + np.count_nonzero(is_untrained) / (len(sizes) + 1)
        # A class with a tenth of its share is as far off as one with ten times it.
        with np.errstate(divide="ignore"):
            octaves = np.abs(np.log2(num_train / sizes / self.share))
        by_class = np.minimum(octaves, _MAX_OCTAVES).sum() / len(sizes) / _MAX_OCTAVES
        in_all = abs(num_train.sum() / total - self.share)
        lost = 1 - (num_train.sum() + num_test.sum()) / total
        return float(_ABSENT * absent + by_class + 2 * in_all + 0.5 * lost)


def _anneal(blocks: _Blocks, share: float, rng: np.random.Generator) -> tuple[float, NDArray[np.bool_]]:
    """The lowest cost found by moving a block, or a few for an absent class, and its training blocks."""
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
    """`(f,)` which fields train: the closest to the share of 100 random sets with a field on each side."""
    best, best_error = np.zeros(len(sizes), dtype=bool), np.inf
    for _ in range(100):
        order = rng.permutation(len(sizes))
        filled = np.cumsum(sizes[order])
        num_train = int(np.clip(np.abs(filled - share * sizes.sum()).argmin() + 1, 1, len(sizes) - 1))
        error = abs(filled[num_train - 1] - share * sizes.sum())
        if error < best_error:
            best_error = error
            best = np.zeros(len(sizes), dtype=bool)
            best[order[:num_train]] = True
    return best


def _cut_field(
    sides: SideMap, pixels: NDArray[np.int64], settings: FieldsSplit, rng: np.random.Generator
) -> None:
    """Marks a share of a field at one end of its long axis, and what the buffer leaves of the rest."""
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
    """One sentence for each side that lacks classes, naming them."""
    sentences = []
    for side, what in ((Side.TRAIN, "training"), (Side.TEST, "test")):
        present = np.unique(truth.labels[sides == side])
        absent = [truth.class_names[label] for label in truth.class_ids.tolist() if label not in present]
        if absent:
            sentences.append(f"no {what} pixel at this distance for {', '.join(absent)}")
    return tuple(sentences)


def _given(buffer: int | None) -> int:
    if buffer is None:
        raise SplitError(
            "split.buffer: is missing; give the pixels between the sides, such as the patch size"
        )
    return buffer
