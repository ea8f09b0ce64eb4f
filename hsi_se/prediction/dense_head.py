"""The dense layers of `HybridSN` on patches of one scene: on each patch, or on all of them by FFT.

Axes: rows, cols of patches; h = rows + span - 1, w = cols + span - 1 of the features they cover.
"""

import math
from typing import cast

import scipy.fft
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.models.hybridsn import HybridSN

_SMALLEST_SPAN = 5  # below it, patches repeat too little for the FFT to pay
_SPECTRUM_BYTES = 128 * 2**20  # above it, the transformed weights are not worth their memory
_TILES = 16  # of the FFT, at a time
_TOGETHER = 256  # patches of one product


class DenseHead:
    """The head of a network, for features with the channels last.

    Attributes:
        span: rows and cols of a patch before the head.
        can_share: whether `of_scene` pays.
    """

    def __init__(self, model: HybridSN, *, is_shared: bool) -> None:
        linear = cast(nn.Linear, model.head[0])
        shape = list(model.shapes.values())[-1]
        self.span = shape[-1]
        is_pooled = not isinstance(model.pool, nn.Identity)  # a mean is a sum with equal weights
        size = 1 if is_pooled else self.span
        weight = linear.weight.view(linear.out_features, shape[0], -1, size, size)  # (hidden, c, d, h, w)
        if is_pooled:
            weight = (weight / self.span**2).expand(-1, -1, -1, self.span, self.span)
        by_col = (
            weight.permute(4, 3, 2, 1, 0).flatten(1, 3).flip(0)
        )  # (span, span·c, hidden); c: depth, feature
        self._is_packed = weight.device.type == "cpu" and _can_pack()
        self._weights = [_pack(some) if self._is_packed else some.contiguous() for some in by_col]
        self.bias = linear.bias
        self.summed = weight.sum((3, 4)).transpose(1, 2).flatten(1)  # (hidden, d·c)
        self._rest = model.head[1:]
        self._fft_size = scipy.fft.next_fast_len(max(16, 2 * self.span - 2), real=True)
        num_frequencies = self._fft_size * (self._fft_size // 2 + 1)
        self.can_share = (
            self.span >= _SMALLEST_SPAN and self.summed.numel() * num_frequencies * 8 <= _SPECTRUM_BYTES
        )
        if self.can_share and is_shared:
            kernel = weight.permute(2, 1, 0, 3, 4).flatten(0, 1)  # (d·c, hidden, h, w)
            spectrum = torch.fft.rfft2(kernel, s=(self._fft_size, self._fft_size)).conj()
            self._spectrum = spectrum.permute(2, 3, 0, 1).flatten(0, 1).resolve_conj().contiguous()

    def __call__(
        self, patches: Tensor, *, gates: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """Returns the logits `(n, classes)` of patches `(span, n, span·c)`: col backwards, row.

        Args:
            patches: sliced by col, so that each slice of many patches is one matrix product.
            gates: `(n, c)` that their features get before.
            offset: `(n, hidden)` or `(hidden,)` added to the first layer.
        """
        hidden = self.bias.expand(patches.shape[1], -1).clone()  # which is the bias itself for one patch
        if offset is not None:
            hidden += offset
        num_products = max(1, round(len(hidden) / _TOGETHER)) if self._is_packed else 1
        size = math.ceil(len(hidden) / num_products)  # all alike: a small one at the end would be slow
        sums = list(torch.split(hidden, size))
        gated = patches.new_empty(size, patches.shape[2])  # which stays in the cache until it is multiplied
        for some, weight in zip(patches, self._weights, strict=True):
            for place, part in enumerate(torch.split(some, size)):
                if gates is not None:
                    gate = gates[place * size :][: len(part)].unsqueeze(1)
                    target = gated[: len(part)]
                    shape = (len(part), -1, gates.shape[1])
                    torch.mul(part.view(shape), gate, out=target.view(shape))
                    part = target
                sums[place] = self._add_product(sums[place], part, weight)
        logits: Tensor = self._rest(torch.cat(sums))
        return logits

    def _add_product(self, total: Tensor, some: Tensor, weight: Tensor) -> Tensor:
        if not self._is_packed:
            return total.addmm_(some, weight)
        added: Tensor = torch.ops.mkldnn._linear_pointwise.binary(some, total, weight, None, "add")
        return added

    def of_scene(self, features: Tensor) -> Tensor:
        """Returns the logits `(rows, cols, classes)` of all patches of features `(d·c, h, w)`.

        The first layer is a convolution with a kernel of span × span: by FFT, in overlapping tiles.
        """
        size, step = self._fft_size, self._fft_size - self.span + 1
        rows, cols = (length - self.span + 1 for length in features.shape[1:])
        missing = [-length % step for length in (cols, rows)]
        tiles = F.pad(features, (0, missing[0], 0, missing[1]))
        tiles = tiles.unfold(1, size, step).unfold(2, size, step)  # (d·c, tile row, tile col, size, size)
        shape = tiles.shape[1:3]
        hidden = features.new_empty(shape[0] * step, shape[1] * step, len(self.bias))
        for tile_row in range(shape[0]):
            for first in range(0, shape[1], _TILES):
                spectrum = torch.fft.rfft2(tiles[:, tile_row, first : first + _TILES])
                products = torch.bmm(spectrum.flatten(2).permute(2, 1, 0), self._spectrum)
                products = products.permute(1, 2, 0).reshape(*products.shape[1:], size, -1)
                sums = torch.fft.irfft2(products, s=(size, size))[..., :step, :step]
                target = hidden[tile_row * step :, first * step :][:step]
                target[:, : len(sums) * step] = sums.permute(2, 0, 3, 1).flatten(1, 2)
        logits: Tensor = self._rest(hidden[:rows, :cols] + self.bias)
        return logits


def _can_pack() -> bool:
    """Whether oneDNN multiplies here by weights in its own order: on AMD, a fifth faster than MKL does."""
    is_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return is_x86 and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def _pack(weight: Tensor) -> Tensor:
    """`(in, hidden)`, as `torch.ops.mkldnn._linear_pointwise` takes it."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.T.contiguous(), _TOGETHER)
    return packed
