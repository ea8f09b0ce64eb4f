"""The convolutional block attention module: a gate per channel, then a gate per pixel.

Woo, Park, Lee, Kweon: CBAM, https://arxiv.org/abs/1807.06521.
Axes: n patches, c features, h rows, w cols.
"""

import torch
from torch import Tensor, nn

from hsi_se.attention import AttentionBlock
from hsi_se.config import model as config
from hsi_se.config.registry import register_attention


@register_attention("cbam", settings=config.Cbam)
class Cbam(AttentionBlock):
    """Scales by `sigmoid(mlp(mean) + mlp(max))` over channels, then by `sigmoid(conv[mean; max])` (eqs. 2-3).

    Departures from the paper: `spatial_kernel=0` removes the spatial gate, and the channel gates
    alone work at any rank; `bias` is an option; the hidden width is `max(1, round(c / reduction))`.

    Shape: `(n, c, h, w)`, or any `(n, c, …)` without the spatial gate; the output has the same shape.
    """

    def __init__(
        self, channels: int, num_out: int = 0, *, is_3d: bool = False, reduction: int = 16, bias: bool = False,
        spatial_kernel: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(channels, num_out)
        spatial_kernel = (0 if is_3d else 7) if spatial_kernel is None else spatial_kernel
        hidden = max(1, round(channels / reduction))
        spatial = f", spatial {spatial_kernel}×{spatial_kernel}" if spatial_kernel else " only"
        self.description = f"cbam channels {channels}→{hidden}→{channels}{spatial}"
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden, bias=bias), nn.ReLU(), nn.Linear(hidden, channels, bias=bias)
        )
        self.places: nn.Conv2d | None = None
        if spatial_kernel:
            self.places = nn.Conv2d(2, 1, spatial_kernel, padding=spatial_kernel // 2, bias=False)

    def excitation(self, x: Tensor) -> Tensor:
        """Returns the channel gates `(n, c)` for features `x`."""
        flat = x.flatten(2)  # (n, c, positions)
        return self.squash(self.mlp(flat.mean(2)) + self.mlp(flat.amax(2)))

    def forward(self, x: Tensor) -> Tensor:
        gates = self.excitation(x)  # (n, c)
        x = x * gates.view(*gates.shape, *[1] * (x.ndim - 2))
        if self.places is None:
            return x
        statistics = torch.stack([x.mean(1), x.amax(1)], dim=1)  # (n, 2, h, w)
        return x * self.squash(self.places(statistics))
