"""Res2Net: residual blocks with a hierarchy of 3 × 3 convolutions over groups of features.

Gao, Cheng, Zhao, Zhang, Yang, Torr: Res2Net, https://arxiv.org/abs/1904.01169.
Axes: n images, c channels, h rows, w cols; s groups.
"""

import torch
from torch import Tensor, nn

from hsi_se.config import model as config
from hsi_se.models.network import make_conv2d
from hsi_se.models.se_resnet import EXPANSION, ResidualNetwork, Strides


class Hierarchy(nn.Module):
    """The branch of a Res2Net block: 1 × 1, a hierarchy of 3 × 3 over s groups, 1 × 1 (eq. 1).

    Every group but the last is convolved; from the second on, the previous group's output is added first. In
    the first block of a stage the groups are convolved independently, and the last group is average-pooled,
    as in the authors' code.

    Shape: `(n, num_in, h, w)` to `(n, 4·width, h / stride, w / stride)`.
    """

    def __init__(self, num_in: int, width: int, *, group_width: int, scale: int, strides: Strides) -> None:
        super().__init__()
        num_out = EXPANSION * width
        self.is_first = num_in != num_out  # of its stage: the number of features changes
        first, stride = strides
        self.reduce = make_conv2d(num_in, scale * group_width, 1, stride=first)
        self.convs = nn.ModuleList(make_conv2d(group_width, group_width, 3, stride=stride) for _ in range(scale - 1))
        self.rest = nn.AvgPool2d(3, stride=stride, padding=1) if self.is_first else nn.Identity()
        self.expand = make_conv2d(scale * group_width, num_out, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = self.reduce(x).chunk(len(self.convs) + 1, dim=1)  # s × (n, c/s, h, w)
        found: list[Tensor] = []
        for group, conv in zip(groups, self.convs, strict=True):
            is_joined = found and not self.is_first
            found.append(conv(group + found[-1] if is_joined else group))
        joined = torch.cat([*found, self.rest(last)], dim=1)  # (n, c, h/stride, w/stride)
        expanded: Tensor = self.expand(joined)
        return expanded


class Res2Net(ResidualNetwork):
    """Res2Net of depth 50, 101 or 152, with attention on the branch, before the addition."""

    @staticmethod
    def make_branch(settings: config.Res2Net, num_in: int, width: int, *, strides: Strides) -> tuple[nn.Module, str]:
        group_width = width * settings.base_width // 64
        branch = Hierarchy(num_in, width, group_width=group_width, scale=settings.scale, strides=strides)
        return branch, f"Res2Net block {settings.scale} × {group_width}"
