"""Gather-excite: a gate per channel and pixel, from what is gathered over its neighbourhood.

Hu, Shen, Albanie, Sun, Vedaldi: Gather-Excite, https://arxiv.org/abs/1810.12348.
Axes: n patches, c features, h rows, w cols.
"""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.attention import AttentionBlock
from hsi_se.config import model as config
from hsi_se.config.registry import register_attention
from hsi_se.errors import ConfigError


@register_attention("gather_excite", settings=config.GatherExcite)
class GatherExcite(AttentionBlock):
    """Scales by the sigmoid of gathered features, upsampled to the input's size (section 3).

    Without parameters (GE-θ⁻), these are means over (2e - 1) × (2e - 1) pixels at stride e, the `extent`, or over the
    whole map for 0. With `learned` (GE-θ), they are log₂ e depth-wise 3 × 3 convolutions of stride 2, or one as large
    as the map, whose `size` is then fixed; each has a batch norm, with ReLUs between them.

    Shape: `(n, c, h, w)`; the output has the same shape.
    """

    def __init__(
        self, channels: int = 1, num_out: int = 0, *, extent: int = 0, learned: bool = False,
        shape: tuple[int, ...] = (1, 1, 1),
    ) -> None:  # fmt: skip
        super().__init__(channels, num_out)
        self.description = f"gather-excite {extent or 'global'}{', learned' if learned else ''}"
        self.extent, self.size = extent, shape[1:]
        form: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1} if extent else {"kernel_size": shape[1:]}
        layers: list[nn.Module] = []
        for _ in range(max(1, int(math.log2(extent or 2))) if learned else 0):
            conv = nn.Conv2d(channels, channels, groups=channels, bias=False, **form)
            layers += [*[nn.ReLU()][: len(layers)], conv, nn.BatchNorm2d(channels)]
        self.gather = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.gather):
            if not self.extent and x.shape[2:] != self.size:
                sizes = " and ".join(f"{rows} × {cols}" for rows, cols in (x.shape[2:], self.size))
                raise ConfigError(f"gather_excite: learned over another map, {sizes}; write extent: 2, 4 or 8")
            gathered = self.gather(x)
        elif self.extent:
            size = 2 * self.extent - 1
            gathered = F.avg_pool2d(x, size, self.extent, padding=size // 2, count_include_pad=False)
        else:
            gathered = x.mean((2, 3), keepdim=True)
        return x * self.squash(F.interpolate(gathered, size=x.shape[2:]) if self.extent else gathered)
