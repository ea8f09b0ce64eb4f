"""Computes the dense layers of `HybridSN` for patches of one scene, one by one or for all of them by FFT.

The first dense layer multiplies the span × span × c features of a patch by a weight matrix. Over all
patches of a scene this is a convolution (without flip) of the scene's features with span × span kernels.

Axes: rows, cols of patches; h = rows + span - 1 and w = cols + span - 1 rows and cols of the features that
they cover; d spectral depth, c features; hidden units of the first dense layer.
"""

import math
from collections.abc import Sequence
from typing import cast

import scipy.fft
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.models.hybridsn import HybridSN

_SMALLEST_SPAN = 5  # with smaller patches, the FFT is not faster than one product per patch
_SPECTRUM_BYTES = 128 * 2**20  # memory limit of the transformed weights
_PATCHES_PER_PRODUCT = 256


class DenseHead:
    """The head of a network, for features with the channels as last axis.

    With `is_shared` it prepares `of_scene`, which needs the transformed weights, if that `can_share`.
    """

    def __init__(self, model: HybridSN, *, is_shared: bool) -> None:
        linear = cast(nn.Linear, model.head[0])
        shape = list(model.shapes.values())[-1]
        self.span = shape[-1]  # rows and cols of a patch's features before the head
        is_pooled = not isinstance(model.pool, nn.Identity)  # a mean is a sum with equal weights
        size = 1 if is_pooled else self.span
        weight = linear.weight.view(linear.out_features, shape[0], -1, size, size)  # (hidden, c, d, h, w)
        if is_pooled:
            weight = (weight / self.span**2).expand(-1, -1, -1, self.span, self.span)
        by_col = weight.permute(4, 3, 2, 1, 0).flatten(1, 3).flip(0)  # (span, span·d·c, hidden)
        self._is_packed = weight.device.type == "cpu" and _can_pack()
        self._weights = [some.contiguous() for some in by_col]
        if self._is_packed:  # in the memory order of `torch.ops.mkldnn._linear_pointwise`
            pack = torch.ops.mkldnn._reorder_linear_weight
            self._weights = [pack(some.T.contiguous(), _PATCHES_PER_PRODUCT) for some in by_col]
        self.bias = linear.bias
        self.summed = weight.sum((3, 4)).transpose(1, 2).flatten(1)  # (hidden, d·c), over all locations
        self._rest = model.head[1:]
        self._fft_size = scipy.fft.next_fast_len(max(16, 2 * self.span - 2), real=True)
        num_frequencies = self._fft_size * (self._fft_size // 2 + 1)
        self.can_share = (  # `of_scene` is worth its memory and faster than single patches
            self.span >= _SMALLEST_SPAN and self.summed.numel() * num_frequencies * 8 <= _SPECTRUM_BYTES
        )
        if self.can_share and is_shared:
            kernel = weight.permute(2, 1, 0, 3, 4).flatten(0, 1)  # (d·c, hidden, h, w)
            spectrum = torch.fft.rfft2(kernel, s=(self._fft_size, self._fft_size)).conj()
            self._spectrum = spectrum.permute(2, 3, 0, 1).flatten(0, 1).resolve_conj().contiguous()

    def __call__(
        self, parts: Sequence[Tensor] | Tensor, *, gates: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """Returns the logits `(n, classes)` of patches.

        Args:
            parts: for each col in the patch, in reverse order, `(n, span, d·c)`: the patch, the row in the patch and
                its channels; n can be several axes. Each col of all patches is one matrix product.
            gates: `(n, d·c)` factors by which the channels of each patch are scaled first.
            offset: `(n, hidden)` or `(hidden,)`, added to the first layer before its activation.
        """
        first = parts[0]
        num_values = first.shape[-2] * first.shape[-1]
        hidden = self.bias.expand(first.numel() // num_values, -1).clone()  # a copy, or `+=` could change the bias
        if offset is not None:
            hidden += offset
        num_products = max(1, round(len(hidden) / _PATCHES_PER_PRODUCT)) if self._is_packed else 1
        size = math.ceil(len(hidden) / num_products)  # equal sizes: a small last product would be slow
        sums = list(torch.split(hidden, size))
        for part, weight in zip(parts, self._weights, strict=True):
            for number, some in enumerate(torch.split(part, size)):
                if gates is not None:
                    some = some * gates[number * size :][:size].view(*some.shape[:-2], 1, -1)
                some = some.reshape(-1, num_values)
                if self._is_packed:
                    sums[number] = torch.ops.mkldnn._linear_pointwise.binary(some, sums[number], weight, None, "add")
                else:
                    sums[number].addmm_(some, weight)
        logits: Tensor = self._rest(torch.cat(sums))
        return logits

    def of_scene(self, features: Tensor, *, num_together: int) -> Tensor:
        """Returns the logits `(rows, cols, classes)` of all patches of features `(d, c, h, w)`.

        The first layer is a convolution with span × span kernels, computed by FFT with overlap-save:
        tiles of `fft_size` overlap by span - 1, and of each result the valid part is kept.
        `num_together` tiles are transformed at once.
        """
        size, step = self._fft_size, self._fft_size - self.span + 1
        features = features.flatten(0, 1)
        rows, cols = (length - self.span + 1 for length in features.shape[1:])
        missing = [-length % step for length in (cols, rows)]
        tiles = F.pad(features, (0, missing[0], 0, missing[1]))
        tiles = tiles.unfold(1, size, step).unfold(2, size, step)  # (d·c, tile row, tile col, size, size)
        shape = tiles.shape[1:3]
        hidden = features.new_empty(shape[0], step, shape[1], step, len(self.bias))
        num_rows, num_cols = max(1, num_together // shape[1]), min(num_together, shape[1])
        for row in range(0, shape[0], num_rows):
            for col in range(0, shape[1], num_cols):
                some = tiles[:, row : row + num_rows, col : col + num_cols]
                spectrum = torch.fft.rfft2(some)
                products = torch.bmm(spectrum.flatten(3).flatten(1, 2).permute(2, 1, 0), self._spectrum)
                products = products.permute(1, 2, 0).reshape(*products.shape[1:], size, -1)
                sums = torch.fft.irfft2(products, s=(size, size))[..., :step, :step]
                sums = sums.view(*some.shape[1:3], *sums.shape[1:])  # (tile row, tile col, hidden, step, step)
                hidden[row : row + num_rows, :, col : col + num_cols] = sums.permute(0, 3, 1, 4, 2)
        logits: Tensor = self._rest(hidden.flatten(2, 3).flatten(0, 1)[:rows, :cols] + self.bias)
        return logits


def _can_pack() -> bool:
    """Returns whether oneDNN has products with packed weights: on AMD, a fifth faster than MKL's."""
    is_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return is_x86 and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
