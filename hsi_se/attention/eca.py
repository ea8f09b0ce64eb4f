"""Efficient channel attention: a gate per channel from the means of neighbouring channels.

Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, https://arxiv.org/abs/1910.03151.
"""

import math

from torch import Tensor, nn

from hsi_se.attention.channel_gate import Axis, ChannelGate
from hsi_se.config import model as config
from hsi_se.config.registry import register_attention


@register_attention("eca", settings=config.EfficientChannel)
class EfficientChannel(ChannelGate):
    """Scales every channel by `sigmoid(conv1d(z))`, where z are the channel means (section 3.2).

    Departure from the paper: `axis="band"` gates the spectral depth, where neighbouring bands are related. `channels`
    is the length of the gated axis, C; by default the kernel's size is computed from it, with γ = 2 and b = 1.
    """

    def __init__(
        self, channels: int, num_out: int = 0, *, kernel_size: int | None = None, axis: Axis = "feature"
    ) -> None:
        super().__init__(channels, num_out, axis=axis)
        size = kernel_size or eca_kernel_size(channels)
        self.description = f"eca {axis} {channels}, kernel {size}"
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def gate(self, squeezed: Tensor) -> Tensor:
        return self.squash(self.conv(squeezed[:, None])).squeeze(1)  # (n, C)


def eca_kernel_size(channels: int) -> int:
    """Returns log₂(C) / 2 + 1 / 2 truncated to an integer, plus 1 if even (section 3.2)."""
    size = int((math.log2(channels) + 1) / 2)
    return size if size % 2 else size + 1
