"""Squeeze-and-excitation: one gate per channel, from the mean of each channel.

Hu, Shen, Albanie, Sun, Wu: Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507.
"""

from typing import Literal

from torch import Tensor, nn

from hsi_se.attention.channel_gate import Axis, ChannelGate


class SqueezeExcite(ChannelGate):
    """Scales every channel by `sigmoid(W₂ relu(W₁ z))`, where z are the squeezed channels (eqs. 2-4).

    Departures from the paper: `squeeze="max"`, `axis="band"` (gates over the spectral depth instead
    of features) and `bias=False` are options; the hidden width is at least 1.

    Args:
        channels: length of the gated axis, C.
        reduction: r; the hidden width is `max(1, round(C / r))`.
        bias: whether the two layers have a bias.
        form: `linear` layers, or the same layers as 1×1 convolutions (`conv`).
        squeeze: the statistic computed for each channel.
        axis: the gated axis; see `ChannelGate`.

    Shape: any `(n, c, …)`; the output has the same shape.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        bias: bool = True,
        form: Literal["linear", "conv"] = "linear",
        squeeze: Literal["mean", "max"] = "mean",
        axis: Axis = "feature",
    ) -> None:
        super().__init__(axis=axis, squeeze=squeeze)
        hidden = max(1, round(channels / reduction))
        self.description = f"se {axis} {channels}→{hidden}→{channels}, {squeeze}, {form}"
        self.form = form
        self.reduce: nn.Module
        self.expand: nn.Module
        if form == "linear":
            self.reduce = nn.Linear(channels, hidden, bias=bias)
            self.expand = nn.Linear(hidden, channels, bias=bias)
        else:
            self.reduce = nn.Conv2d(channels, hidden, 1, bias=bias)
            self.expand = nn.Conv2d(hidden, channels, 1, bias=bias)

    def gate(self, squeezed: Tensor) -> Tensor:
        if self.form == "conv":
            squeezed = squeezed[:, :, None, None]  # (n, C, 1, 1)
        gates: Tensor = self.expand(self.reduce(squeezed).relu()).sigmoid()
        return gates.flatten(1)  # (n, C)
