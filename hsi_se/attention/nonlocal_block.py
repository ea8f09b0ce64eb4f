"""The non-local block: adds to every position a sum over all positions, weighted by similarity.

Wang, Girshick, Gupta, He: Non-local Neural Networks, https://arxiv.org/abs/1711.07971.
Axes: n patches, c features, d spectral depth, h rows, w cols; q query positions, s key positions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.attention import AttentionBlock
from hsi_se.config import model as config
from hsi_se.config.registry import register_attention


@register_attention("nonlocal", settings=config.NonLocal)
class NonLocal(AttentionBlock):
    """Adds `norm(W softmax(θᵀφ) g)` to its input: the embedded Gaussian (eqs. 1, 3, 6).

    The last norm's scale is initialised to zero (section 4.1), so that a new block is the identity.
    `sub_sample` max-pools φ and g by 2 × 2 over rows and cols (section 3.3).

    Shape: `(n, c, h, w)`, or `(n, c, d, h, w)` when 3-D; the output has the same shape.
    """

    def __init__(
        self, channels: int, num_out: int = 0, *, is_3d: bool = False, reduction: int = 2, sub_sample: bool = False
    ) -> None:
        super().__init__(channels, num_out)
        width = max(1, channels // reduction)
        sampled = ", keys sub-sampled" if sub_sample else ""
        self.description = f"non-local {'3-D' if is_3d else '2-D'} {channels}→{width}→{channels}{sampled}"
        conv, norm = (nn.Conv3d, nn.BatchNorm3d) if is_3d else (nn.Conv2d, nn.BatchNorm2d)
        self.theta, self.phi, self.g = (conv(channels, width, 1) for _ in range(3))
        self.out = conv(width, channels, 1)
        self.norm = norm(channels)
        nn.init.zeros_(self.norm.weight)
        self.sub_sample = sub_sample

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.theta(x), self.phi(x), self.g(x)
        if self.sub_sample:
            keys, values = _halve(keys), _halve(values)
        # Fused attention avoids a q × s matrix, but needs a contiguous last axis, even of length 1.
        rows = (each.flatten(2).transpose(1, 2)[:, None] for each in (queries, keys, values))
        q, k, v = (each.clone(memory_format=torch.contiguous_format) for each in rows)  # (n, 1, positions, c/r)
        gathered = F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0]  # (n, q, c/r)
        update: Tensor = self.norm(self.out(gathered.transpose(1, 2).reshape(queries.shape)))
        return x + update


def _halve(x: Tensor) -> Tensor:
    """Returns 2 × 2 maxima over rows and cols; a last odd row or col is kept, so one pixel stays one."""
    if x.ndim == 5:
        return F.max_pool3d(x, (1, 2, 2), ceil_mode=True)
    return F.max_pool2d(x, 2, ceil_mode=True)
