"""What every gate per channel has in common, so that a map can compute the gates of all patches at once.

Axes: n patches, c features, d spectral depth, h rows, w cols.
"""

from typing import Literal

from torch import Tensor, nn


class ChannelGate(nn.Module):
    """Scales every channel by a factor ≥ 0 that depends on one statistic of each channel alone.

    A subclass sets both attributes and gives `gate`, which is all that a map asks of it.

    Attributes:
        squeeze: the statistic, over every axis but the batch and the gated one.
        gated_dim: the axis of the channels, 1 or 2.

    Shape: any `(n, c, …)`; the output has the input's.
    """

    squeeze: Literal["mean", "max"]
    gated_dim: int

    def gate(self, squeezed: Tensor) -> Tensor:
        """The factors `(n, C)` ≥ 0 that follow from the squeezed channels `(n, C)`."""
        raise NotImplementedError

    def excitation(self, x: Tensor) -> Tensor:
        """The factors `(n, C)` that `x` gets."""
        others = [dim for dim in range(1, x.ndim) if dim != self.gated_dim]
        return self.gate(x.mean(others) if self.squeeze == "mean" else x.amax(others))

    def forward(self, x: Tensor) -> Tensor:
        shape = [1] * x.ndim
        shape[0], shape[self.gated_dim] = x.shape[0], x.shape[self.gated_dim]
        return x * self.excitation(x).view(shape)
