"""Res2Net: in each block, groups of features pass 3 × 3 convolutions one after another.

Gao, Cheng, Zhao, Zhang, Yang, Torr: Res2Net, https://arxiv.org/abs/1904.01169.
Axes: n images, c channels, h rows, w cols; s groups.
"""

import torch
from torch import Tensor, nn

from hsi_se.models.network import Attention, make_conv2d
from hsi_se.models.residual import WIDTHS, ResidualBlock, ResidualNetwork, Stem
from hsi_se.models.se_resnet import DEPTHS

_EXPANSION = 4


class Hierarchy(nn.Module):
    """The branch of a Res2Net block: 1 × 1, a hierarchy of 3 × 3 over s groups, 1 × 1 (eq. 1).

    Each group but one passes a convolution, together with the group before; at the start of a stage,
    where the map may shrink, the groups stay apart and the one without a convolution is averaged, as in
    the authors' code.

    Shape: `(n, num_in, h, w)` to `(n, 4·width, h / stride, w / stride)`.
    """

    def __init__(
        self, num_in: int, width: int, *, group_width: int, scale: int, stride: int, is_first: bool
    ) -> None:
        super().__init__()
        self.reduce = make_conv2d(num_in, scale * group_width, 1)
        self.convs = nn.ModuleList(
            make_conv2d(group_width, group_width, 3, stride=stride) for _ in range(scale - 1)
        )
        self.rest = nn.AvgPool2d(3, stride=stride, padding=1) if is_first else nn.Identity()
        self.expand = make_conv2d(scale * group_width, _EXPANSION * width, 1, relu=False)
        self.is_first = is_first

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
    """Res2Net of depth 50, 101 or 152, the gate before the addition.

    Args:
        depth: layers with weights.
        in_channels: of the input; the components of a patch, k.
        num_classes: C.
        scale: groups of features in a block, s.
        base_width: features of a group in the first stage.
        stem: see `ResidualNetwork`.
        attention: the block of every residual block in each stage named; the others have none.
        dropout: before the dense layer; the paper has none.
        patch_size: rows and cols of the input.
    """

    def __init__(
        self,
        *,
        depth: int,
        in_channels: int,
        num_classes: int,
        scale: int = 4,
        base_width: int = 26,
        stem: Stem = "small",
        attention: Attention | None = None,
        dropout: float = 0.0,
        patch_size: int = 224,
    ) -> None:
        attention = attention or {}

        def make_block(point: str, number: int, num_in: int, stride: int) -> nn.Module:
            width = WIDTHS[point]
            group_width = width * base_width // WIDTHS["layer1"]
            return ResidualBlock(
                Hierarchy(
                    num_in,
                    width,
                    group_width=group_width,
                    scale=scale,
                    stride=stride,
                    is_first=number == 0,
                ),
                num_in=num_in,
                num_out=_EXPANSION * width,
                stride=stride,
                attention=attention.get(point),
                title=f"Res2Net block {scale} × {group_width}",
            )

        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            stem=stem,
            depths=DEPTHS[depth],
            make_block=make_block,
            num_out=[_EXPANSION * width for width in WIDTHS.values()],
            dropout=dropout,
            patch_size=patch_size,
        )
