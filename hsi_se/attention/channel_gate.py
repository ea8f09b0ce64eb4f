"""The base class of blocks that gate whole channels: squeeze, gate, scale.

Axes: n patches, c features, d spectral depth, h rows, w cols.
"""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor

from hsi_se.attention import AttentionBlock

Axis = Literal["feature", "band"]
Squeeze = Literal["mean", "max"]


class ChannelGate(AttentionBlock, ABC):
    """Scales every channel by a positive gate computed from one statistic per channel.

    It works at any rank: the squeeze reduces every axis except the batch and the gated one. Subclasses
    implement `gate`, which maps the statistics to gates. Because the gates depend on nothing else,
    whole-scene maps can share computation between overlapping patches.

    The axis `feature` is axis 1 of `(n, c, …)`; `band` is axis 2 of `(n, c, d, h, w)`.

    Shape: any `(n, c, …)`; the output has the same shape.
    """

    def __init__(self, channels: int = 0, num_out: int = 0, *, axis: Axis, squeeze: Squeeze = "mean") -> None:
        super().__init__(channels, num_out)
        self.gated_dim = 1 if axis == "feature" else 2
        self.squeeze = squeeze

    @abstractmethod
    def gate(self, squeezed: Tensor) -> Tensor:
        """Returns the gates `(n, C)`, above 0, for squeezed channels `(n, C)`."""

    def excitation(self, x: Tensor) -> Tensor:
        """Returns the gates `(n, C)` for features `x`."""
        others = [dim for dim in range(1, x.ndim) if dim != self.gated_dim]
        return self.gate(x.mean(others) if self.squeeze == "mean" else x.amax(others))

    def forward(self, x: Tensor) -> Tensor:
        shape = [1] * x.ndim
        shape[0], shape[self.gated_dim] = x.shape[0], x.shape[self.gated_dim]
        return x * self.excitation(x).view(shape)
