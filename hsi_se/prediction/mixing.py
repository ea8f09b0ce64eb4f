"""Computes a 2-D convolution and ReLU after a channel gate, for all overlapping patches of a scene at once.

Every patch p scales the shared features F by its own gates s(p, g). Its convolution with weights W is

    C(p, o, y) = Σ_g Σ_t Σ_k W(o, g, t, k) · s(p, g) · F(g, t, y + k)

A gate does not depend on the tap k, so it can be moved out of the inner sums:

    C(p, o, y) = Σ_g s(p, g) · G(g, o, y)        G(g, o, y) = Σ_t Σ_k W(o, g, t, k) · F(g, t, y + k)

G does not depend on the patch. It is computed once per location y. For each y, the outputs of all patches
that cover it are then one matrix product: (patches × g) · (g × o).

Axes: g groups of input channels with a common gate; t channels of a group; k the 3 × 3 taps; o output
channels; h rows and w cols of the features; rows and cols of patches, one per pixel. A patch covers
span × span locations y of the convolution's output.
"""

import math
import mmap
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor
from torch.nn import functional as F

_NUM_COLS = 8  # columns of patches that are yielded together
_SCRATCH_FLOATS = 2**18  # size of one product, which stays in the cache until it is stored
_COLUMNS_TOGETHER = 8  # columns of locations whose G is computed at once on a GPU
_ALIGNMENT = 4  # floats to whose multiple rows of a product are extended there


def convolve_gated(
    features: Tensor, gates: Tensor, *, weight: Tensor, bias: Tensor, span: int, spare: list[Tensor]
) -> Iterator[Tensor]:
    """Yields the convolution's output for all patches, some columns of patches at a time.

    The values are `max(C, -bias)`, without the bias, because `max(C, -bias) + bias = relu(C + bias)`.
    The caller adds `bias` where it costs least.

    The output is a view on a buffer that the next iteration overwrites.

    Args:
        features: `(g, t, rows + span + 1, cols + span + 1)`.
        gates: `(rows, cols, g)`.
        weight: `(g, t·9, o)`, with the taps of a channel in the order row, col.
        bias: `(o,)`.
        span: rows and cols of the convolution's output for one patch.
        spare: list of buffers for reuse. One is taken from it, and put back at the end.

    Yields:
        `(span, columns · rows, span, o)`: the col in the patch, in reverse order; the patches, column by
        column; the row in the patch; the output channel.
    """
    rows, cols = gates.shape[:2]
    num_out = weight.shape[2]
    # `patches` is a ring buffer of patch columns: `span` of them contain the current column of locations,
    # and finished ones wait until their block is complete. No block crosses the end.
    num_slots = math.ceil((span - 1 + _NUM_COLS) / _NUM_COLS) * _NUM_COLS
    # With the col in the patch as first axis, a column of locations writes to few pages of memory.
    memory = _take(spare, span * num_slots * rows * span * num_out, like=features)
    patches = memory[: span * num_slots * rows * span * num_out].view(span, num_slots, rows, span, num_out)
    scratch = features.new_empty(max(_SCRATCH_FLOATS, span * span * num_out))
    x_stride, slot_stride, row_stride, y_stride, _ = patches.stride()  # x, y: col and row in the patch
    by_col = features.permute(3, 0, 1, 2).contiguous()  # (w, g, t, h)
    floor = -bias
    first = 0
    for col in range(cols + span - 1):
        taps = by_col[col : col + 3].unfold(3, rows + span - 1, 1)  # (col tap, g, t, row tap, y)
        taps = taps.permute(1, 2, 3, 0, 4).flatten(1, 3).transpose(1, 2)  # (g, y, t·9)
        products = taps @ weight  # (g, y, o)
        left, right = max(0, col - span + 1), min(cols, col + 1)
        covering = gates[:, left:right].contiguous()
        wrap = right // num_slots * num_slots  # where the ring buffer begins again
        runs = [(left, wrap), (wrap, right)] if left < wrap < right else [(left, right)]
        for row, top, mixed in _mix_column(covering, products, scratch, span=span):
            num_locations, num_rows = mixed.shape[:2]
            for begin, end in runs:
                # In the patch of row p and col q, location (row, col) has y = row - p and x = col - q.
                # The next patch row thus has y - 1, and the next patch col x - 1, which is stored one
                # x_stride further. The next location has the same y in the next patch row.
                corner = (span - 1 - (col - begin)) * x_stride + begin % num_slots * slot_stride
                offset = corner + top * row_stride + (row - top) * y_stride
                next_row = row_stride - y_stride
                target = patches.as_strided(
                    (num_locations, num_rows, end - begin, num_out),
                    (row_stride, next_row, slot_stride + x_stride, 1),
                    offset,
                )
                torch.maximum(mixed[:, :, begin - left : end - left], floor, out=target)
        while first < cols and min(first + _NUM_COLS, cols) <= col - span + 2:
            slot, count = first % num_slots, min(_NUM_COLS, cols - first)
            yield patches[:, slot : slot + count].flatten(1, 2)
            first += count
    spare.append(memory)


def convolve_gated_at_once(features: Tensor, gates: Tensor, *, weight: Tensor, bias: Tensor, span: int) -> list[Tensor]:
    """Returns the convolution and ReLU for all patches at once, in few and large operations, for a GPU.

    The products are stored as they come, by location: for each, span × span patches, although fewer cover those at the
    border. A patch's next location is covered by it one row or col earlier, so its values have constant strides in
    that order, and are read without having been moved. The bias is one more group, whose gate is 1.

    Args are those of `convolve_gated`, without `spare`.

    Returns:
        For each col in the patch, in reverse order, a view `(cols, rows, span, o)`: the patch's col and row, the row in
        the patch, the output channel.
    """
    rows, cols = gates.shape[:2]
    margin, num_out = span - 1, weight.shape[2]
    num_rows, num_cols = rows + margin, cols + margin  # of locations
    gates = torch.cat([gates, gates.new_ones(rows, cols, 1)], 2)
    # Aligned in memory, and with patches around the scene that have no gates.
    gates = F.pad(gates, (0, -gates.shape[2] % _ALIGNMENT, 0, 0, margin, margin))  # (rows + 2·margin, cols, g)
    num_groups = gates.shape[2]
    taps = features.permute(3, 0, 1, 2).unfold(0, 3, 1).unfold(3, num_rows, 1)  # (col, g, t, row tap, col tap, y)
    taps = taps.transpose(3, 4).permute(0, 1, 5, 2, 4, 3)  # (col, g, y, t, row tap, col tap)
    products = features.new_zeros(num_groups, _COLUMNS_TOGETHER, num_rows, num_out)
    products[len(features)] = bias
    mixed = features.new_empty(num_cols, num_rows, span, span, num_out)
    for col in range(num_cols):
        if col % _COLUMNS_TOGETHER == 0:
            some = taps[col : col + _COLUMNS_TOGETHER].transpose(0, 1).flatten(3)  # (g, col, y, t·9)
            products[: len(features), : some.shape[1]] = (some.flatten(1, 2) @ weight).view(*some.shape[:3], num_out)
            by_row = products.permute(1, 2, 0, 3)  # (col, y, g, o)
        left, right = max(0, col - margin), min(cols, col + 1)  # patches that cover this column of locations
        covering = gates[:, left:right].contiguous()
        width = right - left
        windows = covering.as_strided(  # overlapping: the next location's window begins one patch row later
            (num_rows, span * width, num_groups), (width * num_groups, num_groups, 1)
        )
        product = torch.bmm(windows, by_row[col % _COLUMNS_TOGETHER]).view(num_rows, span, width, num_out)
        begin = left - (col - margin)
        torch.clamp(product, min=0, out=mixed[col, :, :, begin : begin + width])
    # The patch of row p and col q covers location (p + y, q + x) as number (margin - y, margin - x) of its window.
    (col_stride, row_stride), corner = mixed.stride()[:2], (margin * span + margin) * num_out
    x_stride, y_stride = col_stride - num_out, row_stride - span * num_out
    shape, strides = (cols, rows, span, num_out), (col_stride, row_stride, y_stride, 1)
    return [mixed.as_strided(shape, strides, corner + x * x_stride) for x in reversed(range(span))]


def _mix_column(covering: Tensor, products: Tensor, scratch: Tensor, *, span: int) -> Iterator[tuple[int, int, Tensor]]:
    """Computes C for one column of locations, in several products.

    The first and last span - 1 locations are covered by fewer patch rows than the others, so each has its own product.

    Args:
        covering: `(rows, cols, g)` gates of the patches that cover the column of locations.
        products: `(g, rows + span - 1, o)` G along the column.
        scratch: buffer for a product; the next iteration overwrites it.

    Yields:
        The first location; the first patch row that covers it, which is one more for each further location; and C
            `(locations, patch rows, cols, o)`.
    """
    rows, cols, num_groups = covering.shape
    num_out = products.shape[2]
    flat = covering.view(rows * cols, num_groups)
    for row in (*range(span - 1), *range(max(rows, span - 1), rows + span - 1)):
        top, bottom = max(0, row - span + 1), min(rows, row + 1)
        mixed = flat[top * cols : bottom * cols] @ products[:, row]
        yield row, top, mixed.view(1, bottom - top, cols, num_out)
    by_row = products.transpose(0, 1)
    step = max(1, _SCRATCH_FLOATS // (span * cols * num_out))
    for row in range(span - 1, rows, step):
        count, top = min(step, rows - row), row - span + 1
        windows = flat.as_strided(  # overlapping: the next location's window begins one patch row later
            (count, span * cols, num_groups),
            (cols * num_groups, num_groups, 1),
            flat.storage_offset() + top * cols * num_groups,
        )
        mixed = scratch[: count * span * cols * num_out].view(count, span * cols, num_out)
        torch.bmm(windows, by_row[row : row + count], out=mixed)
        yield row, top, mixed.view(count, span, cols, num_out)


def _take(spare: list[Tensor], size: int, *, like: Tensor) -> Tensor:
    """Returns a buffer of at least `size` elements, from `spare` or new, in pages of 2 MB if possible.

    Writes are scattered over the whole buffer, and the first use of a page costs more than all later
    writes to it. Hence large pages and reuse.
    """
    with suppress(IndexError):  # other threads take from the list too
        if len(found := spare.pop()) >= size:
            return found
        del found
    if like.device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return like.new_empty(size)
    memory = mmap.mmap(-1, size * like.element_size(), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=like.dtype)
