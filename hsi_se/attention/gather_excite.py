"""Gather-excite without parameters: a gate per channel and pixel, from the mean of its neighbourhood.

Hu, Shen, Albanie, Sun, Vedaldi: Gather-Excite, https://arxiv.org/abs/1810.12348.
Axes: n patches, c features, h rows, w cols.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class GatherExcite(nn.Module):
    """Scales by the sigmoid of local means, upsampled to the input's size (GE-θ⁻, section 3).

    Args:
        extent: e; means over (2e - 1) × (2e - 1) pixels at stride e, or over the whole map for 0.

    Shape: `(n, c, h, w)`; the output has the same shape.
    """

    def __init__(self, *, extent: int = 0) -> None:
        super().__init__()
        self.extent = extent

    def extra_repr(self) -> str:
        return f"gather-excite {self.extent or 'global'}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.extent:
            return x * x.mean((2, 3), keepdim=True).sigmoid()
        size = 2 * self.extent - 1
        gathered = F.avg_pool2d(x, size, self.extent, padding=size // 2, count_include_pad=False)
        return x * F.interpolate(gathered, size=x.shape[2:]).sigmoid()
