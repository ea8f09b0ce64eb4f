"""A 2-D convolution of features that every patch has gated in its own way, with its ReLU.

With gates s(p, g) of patch p and shared features F, the convolution is Σ_g s(p, g) G(g, o, y), where
G(g, o, y) = Σ_k W(o, g, k) F(g, y + k) does not depend on p: it is computed once per location y, and
for each location the patches that cover it are one matrix product.

Axes: g gated groups of input channels, t the channels of a group (its terms), o output channels;
h rows and w cols of the features, rows and cols of patches. A patch covers span × span locations.
"""

import math
import mmap
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

_SCRATCH = 2**18  # floats of one product: they stay in the cache until they are stored
_TOGETHER = 4  # locations near an end that are mixed together: one call in place of as many


def convolve_gated(
    features: Tensor,
    gates: Tensor,
    *,
    weight: Tensor,
    bias: Tensor,
    span: int,
    spare: list[Tensor],
    num_cols: int = 8,
) -> Iterator[Tensor]:
    """Yields what the patches hold, `num_cols` columns of them at a time.

    That is `max(convolution, -bias)`, to which the caller adds `bias` where it costs least: the same
    as the ReLU of their sum. It lies in a buffer that the next step overwrites.

    Args:
        features: `(g, t, rows + span + 1, cols + span + 1)`.
        gates: `(rows, cols, g)`.
        weight: `(g, t·9, o)`, taps in the order t, row, col.
        bias: `(o,)`.
        span: rows and cols of the convolution's output for one patch.
        spare: memory that is taken from here, and left here at the end for the next call.
        num_cols: columns of patches that are completed together.

    Yields:
        `(span, columns · rows, span, o)`: the col in the patch, backwards; patches, column by column; the
        row in the patch.
    """
    rows, cols = gates.shape[:2]
    num_out = weight.shape[2]
    # A column of locations touches `span` columns of patches; as many again wait for their block.
    num_slots = math.ceil((span - 1 + num_cols) / num_cols) * num_cols
    # The col in the patch comes first, and a column of locations writes to few pages of memory.
    memory = _take(spare, span * num_slots * rows * span * num_out, like=features)
    patches = memory[: span * num_slots * rows * span * num_out].view(span, num_slots, rows, span, num_out)
    scratch = features.new_empty(max(_SCRATCH, span * span * num_out))
    an_x, a_slot, a_row, a_y, _ = patches.stride()
    by_col = features.permute(3, 0, 1, 2).contiguous()  # (w, g, t, h)
    floor = -bias
    first = 0
    for col in range(cols + span - 1):
        taps = by_col[col : col + 3].unfold(3, rows + span - 1, 1)  # (col tap, g, t, row tap, y)
        taps = taps.permute(1, 2, 3, 0, 4).flatten(1, 3).transpose(1, 2)  # (g, y, t·9)
        products = taps @ weight  # (g, y, o)
        left, right = max(0, col - span + 1), min(cols, col + 1)
        covering = gates[:, left:right].contiguous()
        runs = _split_at_wrap(left, right, num_slots)
        for row, top, step, mixed in _mix_column(covering, products, scratch, span=span):
            num_locations, num_rows = mixed.shape[:2]
            for begin, end in runs:
                # Location (row, col) lies at (row - p, col - q) in the patch of row p and col q.
                corner = (span - 1 - (col - begin)) * an_x + begin % num_slots * a_slot
                target = patches.as_strided(
                    (num_locations, num_rows, end - begin, num_out),
                    (a_y + step * (a_row - a_y), a_row - a_y, a_slot + an_x, 1),
                    corner + top * a_row + (row - top) * a_y,
                )
                torch.maximum(mixed[:, :, begin - left : end - left], floor, out=target)
        while first < cols and min(first + num_cols, cols) <= col - span + 2:
            slot, count = first % num_slots, min(num_cols, cols - first)
            yield patches[:, slot : slot + count].flatten(1, 2)
            first += count
    spare.append(memory)


def _mix_column(
    covering: Tensor, products: Tensor, scratch: Tensor, *, span: int
) -> Iterator[tuple[int, int, int, Tensor]]:
    """Yields first location, first patch row, by how many patch rows a location moves on from the one
    before, and `(locations, patch rows, cols, o)`.

    Near the ends some locations are mixed together with the patches of any of them. What lies outside a
    patch falls on its neighbour's place for another location, which is yielded later: the last end,
    the first, and then what is between.

    Args:
        covering: `(rows, cols, g)` gates of the patches that cover a column of locations.
        products: `(g, rows + span - 1, o)`, G along that column.
        scratch: holds a product until the next.
        span: rows of a patch.
    """
    rows, cols, num_groups = covering.shape
    num_out = products.shape[2]
    flat = covering.view(rows * cols, num_groups)
    by_location = products.flatten(1)  # (g, y·o)
    together = _TOGETHER if rows >= 2 * span else 1
    for first, last in ((max(rows, span - 1), rows + span - 1), (0, span - 1)):
        for row in range(first, last, together):
            count = min(together, last - row)
            top, bottom = max(0, row - span + 1), min(rows, row + count)
            mixed = flat[top * cols : bottom * cols] @ by_location[:, row * num_out : (row + count) * num_out]
            yield row, top, 0, mixed.view(bottom - top, cols, count, num_out).permute(2, 0, 1, 3)
    by_row = products.transpose(0, 1)
    step = max(1, _SCRATCH // (span * cols * num_out))
    for row in range(span - 1, rows, step):
        count, top = min(step, rows - row), row - span + 1
        windows = flat.as_strided(  # they overlap: the next location's begin a patch row later
            (count, span * cols, num_groups),
            (cols * num_groups, num_groups, 1),
            flat.storage_offset() + top * cols * num_groups,
        )
        mixed = scratch[: count * span * cols * num_out].view(count, span * cols, num_out)
        torch.bmm(windows, by_row[row : row + count], out=mixed)
        yield row, top, 1, mixed.view(count, span, cols, num_out)


def _take(spare: list[Tensor], size: int, *, like: Tensor) -> Tensor:
    """Returns memory for at least `size` elements, in pages of 2 MB where the system has them.

    Patches are written all over it; and a page's first use costs more than all that is written to it later.
    """
    with suppress(IndexError):  # threads share the list
        if len(found := spare.pop()) >= size:
            return found
        del found
    if like.device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return like.new_empty(size)
    memory = mmap.mmap(-1, size * like.element_size(), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=like.dtype)


def _split_at_wrap(left: int, right: int, num_slots: int) -> list[tuple[int, int]]:
    """`[left, right)` as one or two runs that do not cross a multiple of `num_slots`."""
    wrap = right // num_slots * num_slots
    return [(left, wrap), (wrap, right)] if left < wrap < right else [(left, right)]
