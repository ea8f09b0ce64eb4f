"""Coordinate attention: one gate per row and one per column, from a shared embedding.

Hou, Zhou, Feng: Coordinate Attention for Efficient Mobile Network Design, https://arxiv.org/abs/2103.02907.
Axes: n patches, c features, h rows, w cols.
"""

import torch
from torch import Tensor, nn

from hsi_se.attention import AttentionBlock
from hsi_se.config import model as config
from hsi_se.config.registry import register_attention


@register_attention("coordinate", settings=config.Coordinate)
class Coordinate(AttentionBlock):
    """Scales `x[c, i, j]` by `gʰ[c, i] · gʷ[c, j]` (eqs. 4-9).

    The embedding has `max(8, c // reduction)` features, as in the paper's code.

    Shape: `(n, c, h, w)`; the output has the same shape.
    """

    def __init__(self, channels: int, num_out: int = 0, *, reduction: int = 16) -> None:
        super().__init__(channels, num_out)
        hidden = max(8, channels // reduction)
        self.description = f"coordinate {channels}→{hidden}→{channels}"
        self.embed = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.rows = nn.Conv2d(hidden, channels, 1)
        self.cols = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        of_rows = x.mean(3, keepdim=True)  # (n, c, h, 1)
        of_cols = x.mean(2).unsqueeze(3)  # (n, c, w, 1)
        embedded = self.embed(torch.cat([of_rows, of_cols], dim=2))  # (n, hidden, h + w, 1)
        of_rows, of_cols = embedded.split([x.shape[2], x.shape[3]], dim=2)
        row_gates = self.squash(self.rows(of_rows))  # (n, c, h, 1)
        col_gates = self.squash(self.cols(of_cols.transpose(2, 3)))  # (n, c, 1, w)
        return x * row_gates * col_gates
