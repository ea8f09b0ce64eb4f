"""What the blocks that gate whole channels share: squeeze, gate, scale.

Axes: n patches, c features, d spectral depth, h rows, w cols.
"""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

Axis = Literal["feature", "band"]


class ChannelGate(nn.Module, ABC):
    """Scales every channel by a gate in (0, 1) that depends on one number a channel.

    It works at any rank: the squeeze runs over every axis but the batch and the gated one. A block
    says in `gate` how the numbers become gates; that this is all it sees of its input is what lets
    whole-scene maps share the work of overlapping patches.

    Args:
        axis: `feature` gates axis 1 of `(n, c, …)`; `band` gates axis 2 of `(n, c, d, h, w)`.
        squeeze: the statistic of each channel.

    Shape: any `(n, c, …)`; the output has the input's.
    """

    def __init__(self, *, axis: Axis, squeeze: Literal["mean", "max"] = "mean") -> None:
        super().__init__()
        self.gated_dim = 1 if axis == "feature" else 2
        self.squeeze = squeeze
        self.description = ""

    def extra_repr(self) -> str:
        return self.description

    @abstractmethod
    def gate(self, squeezed: Tensor) -> Tensor:
        """The gates `(n, C)` in (0, 1) for squeezed channels `(n, C)`."""

    def excitation(self, x: Tensor) -> Tensor:
        """The gates `(n, C)` that `x` gets."""
        others = [dim for dim in range(1, x.ndim) if dim != self.gated_dim]
        return self.gate(x.mean(others) if self.squeeze == "mean" else x.amax(others))

    def forward(self, x: Tensor) -> Tensor:
        shape = [1] * x.ndim
        shape[0], shape[self.gated_dim] = x.shape[0], x.shape[self.gated_dim]
        return x * self.excitation(x).view(shape)
