"""Dividing a label map so that the two sides lie apart: by square blocks, or by whole fields.

Both return a map `(rows, cols)` of sides and the names of the classes that one side has to do without.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hsi_se.config import BlocksSplit, FieldsSplit
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
_MOVES_PER_BLOCK = 30
_MIN_MOVES, _MAX_MOVES = 1500, 8000
_FIRST_TEMPERATURE, _LAST_TEMPERATURE = 0.3, 0.002  # of a cost in which one absent class counts 1


def divide_by_blocks(
    truth: GroundTruth, settings: BlocksSplit, *, rng: np.random.Generator
) -> tuple[SideMap, tuple[str, ...]]:
    """Returns the sides of every labelled pixel, with square blocks as the unit.

    Simulated annealing looks for the set of training blocks that leaves no class without training or
    test pixels, comes close to `train` of every class and of all, and loses few pixels to the buffer.
    Test pixels nearer than `buffer` (Chebyshev) to a training pixel become the buffer.

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
    is_train, is_test = blocks.divide(is_train_block)
    num_train, num_test = blocks.count(is_train), blocks.count(is_test)
    if not ((num_train > 0) & (num_test > 0)).any():
        raise SplitError(
            f"split.buffer = {buffer}: no assignment of blocks of {settings.block_size} pixels leaves a "
            f"class on both sides of a scene of {truth.shape[0]} × {truth.shape[1]}; "
            "lower split.buffer or split.block_size"
        )
    sides = np.full(truth.shape, Side.UNUSED, dtype=np.uint8)
    rows, cols = blocks.pixels.T
    sides[rows, cols] = np.select([is_train, is_test], [Side.TRAIN, Side.TEST], Side.BUFFER)
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
        block_of: `(n,)` their block, 0..B-1.
        near: `(B, n)` pixels outside the block that lie nearer than the buffer to a pixel in it.
        sizes: `(C,)` pixels of each class.
    """

    pixels: NDArray[np.int64]
    classes: NDArray[np.int64]
    block_of: NDArray[np.int64]
    near: NDArray[np.bool_]
    sizes: NDArray[np.int64]

    @classmethod
    def lay_out(
        cls, truth: GroundTruth, *, block_size: int, buffer: int, rng: np.random.Generator
    ) -> "_Blocks":
        pixels = np.argwhere(truth.labels != UNLABELLED)
        classes = np.searchsorted(truth.class_ids, truth.labels[pixels[:, 0], pixels[:, 1]])
        grid = (pixels + rng.integers(block_size, size=2)) // block_size
        _, block_of = np.unique(grid, axis=0, return_inverse=True)
        near = np.zeros((block_of.max() + 1, len(pixels)), dtype=bool)
        for block, row in enumerate(near):
            inside = block_of == block
            if buffer > 0:
                members = np.zeros(truth.shape, dtype=bool)
                members[pixels[inside, 0], pixels[inside, 1]] = True
                reach = ndimage.maximum_filter(members, size=2 * buffer - 1, mode="constant")
                row[:] = reach[pixels[:, 0], pixels[:, 1]] & ~inside
        return cls(pixels, classes, block_of.astype(np.int64), near, np.bincount(classes))

    def divide(self, is_train_block: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """`(n,)` which pixels train, and which are far enough away to be tested."""
        is_train = is_train_block[self.block_of]
        return is_train, ~is_train & ~self.near[is_train_block].any(axis=0)

    def count(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """`(C,)` pixels of each class in a mask `(n,)`."""
        return np.bincount(self.classes[mask], minlength=len(self.sizes))

    def cost(self, num_train: NDArray[np.int64], num_test: NDArray[np.int64], share: float) -> float:
        """Absent classes first, then the shares by class and in all, then what the buffer takes."""
        absent = 2 * (num_train == 0).sum() + (num_test == 0).sum()  # untrained cannot be right; untested can
        by_class = np.abs(num_train / self.sizes - share).mean()
        in_all = abs(num_train.sum() / self.sizes.sum() - share)
        lost = 1 - (num_train.sum() + num_test.sum()) / self.sizes.sum()
        return float(absent + by_class + 2 * in_all + 0.5 * lost)


def _anneal(blocks: _Blocks, share: float, rng: np.random.Generator) -> tuple[float, NDArray[np.bool_]]:
    """The lowest cost found by flipping one block at a time, and the training blocks `(B,)` that have it."""
    num_blocks = len(blocks.near)
    is_train_block = rng.random(num_blocks) < share
    cover = blocks.near[is_train_block].sum(axis=0, dtype=np.int32)  # (n,) training blocks near each pixel
    is_train = is_train_block[blocks.block_of]

    def cost() -> float:
        return blocks.cost(blocks.count(is_train), blocks.count(~is_train & (cover == 0)), share)

    def flip(block: int) -> None:
        is_train_block[block] ^= True
        is_train[blocks.block_of == block] = is_train_block[block]
        cover[blocks.near[block]] += 1 if is_train_block[block] else -1

    num_moves = int(np.clip(_MOVES_PER_BLOCK * num_blocks, _MIN_MOVES, _MAX_MOVES))
    current = best = cost()
    best_blocks = is_train_block.copy()
    for temperature in np.geomspace(_FIRST_TEMPERATURE, _LAST_TEMPERATURE, num_moves):
        block = int(rng.integers(num_blocks))
        flip(block)
        changed = cost()
        if changed <= current or rng.random() < np.exp((current - changed) / temperature):
            current = changed
            if current < best:
                best, best_blocks = current, is_train_block.copy()
        else:
            flip(block)
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
