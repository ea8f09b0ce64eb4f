"""Gather-excite without parameters: a gate per channel and pixel, from the mean of its neighbourhood.

Hu, Shen, Albanie, Sun, Vedaldi: Gather-Excite, https://arxiv.org/abs/1810.12348.
Axes: n patches, c features, h rows, w cols.
"""

from torch import Tensor
from torch.nn import functional as F

from hsi_se.attention import AttentionBlock


class GatherExcite(AttentionBlock):
    """Scales by the sigmoid of local means, upsampled to the input's size (GE-θ⁻, section 3).

    The means are over (2e - 1) × (2e - 1) pixels at stride e, the `extent`, or over the whole map for 0.

    Shape: `(n, c, h, w)`; the output has the same shape.
    """

    def __init__(self, *, extent: int = 0) -> None:
        super().__init__()
        self.description = f"gather-excite {extent or 'global'}"
        self.extent = extent

    def forward(self, x: Tensor) -> Tensor:
        if not self.extent:
            return x * x.mean((2, 3), keepdim=True).sigmoid()
        size = 2 * self.extent - 1
        gathered = F.avg_pool2d(x, size, self.extent, padding=size // 2, count_include_pad=False)
        return x * F.interpolate(gathered, size=x.shape[2:]).sigmoid()
