"""Squeeze-and-excitation: one gate per channel, from the mean of each channel.

Hu, Shen, Albanie, Sun, Wu: Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507.
"""

from functools import partial
from typing import Literal

from torch import Tensor, nn

from hsi_se.attention.channel_gate import Axis, ChannelGate
from hsi_se.config import model as config
from hsi_se.config.registry import register_attention


@register_attention("se", settings=config.SqueezeExcite)
class SqueezeExcite(ChannelGate):
    """Scales every channel by `sigmoid(W₂ relu(W₁ z))`, where z are the squeezed channels (eqs. 2-4).

    Departures from the paper: `squeeze="max"`, `axis="band"` (gates over the spectral depth instead
    of features) and `bias=False` are options; the hidden width is `max(1, round(C / reduction))`, where
    C is the length of the gated axis, `channels`.
    """

    def __init__(
        self,
        channels: int,
        num_out: int = 0,
        *,
        reduction: int = 16,
        bias: bool = True,
        form: Literal["linear", "conv"] = "linear",
        squeeze: Literal["mean", "max"] = "mean",
        axis: Axis = "feature",
    ) -> None:
        super().__init__(channels, num_out, axis=axis, squeeze=squeeze)
        hidden = max(1, round(channels / reduction))
        self.description = f"se {axis} {channels}→{hidden}→{channels}, {squeeze}, {form}"
        self.form = form
        make_layer = nn.Linear if form == "linear" else partial(nn.Conv2d, kernel_size=1)
        self.reduce = make_layer(channels, hidden, bias=bias)
        self.expand = make_layer(hidden, channels, bias=bias)

    def gate(self, squeezed: Tensor) -> Tensor:
        if self.form == "conv":
            squeezed = squeezed[:, :, None, None]  # (n, C, 1, 1)
        return self.squash(self.expand(self.reduce(squeezed).relu())).flatten(1)  # (n, C)
