"""Residual networks with a gate in every block.

Hu, Shen, Albanie, Sun, Wu: Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from hsi_se.config_model import SeResNet as SeResNetSettings
from hsi_se.models.network import Attention, make_conv2d
from hsi_se.models.residual import WIDTHS, Gate, ResidualBlock, ResidualNetwork, Stem

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_EXPANSION = 4  # of a bottleneck's channels


class SeResNet(ResidualNetwork):
    """SE-ResNet of depth 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).

    A bottleneck's stride is on its first 1 × 1 convolution, as in the paper's networks.

    Args:
        depth: layers with weights.
        in_channels: of the input; the components of a patch, k.
        num_classes: C.
        stem: see `ResidualNetwork`.
        gate: see `ResidualBlock`.
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
        stem: Stem = "small",
        gate: Gate = "standard",
        attention: Attention | None = None,
        dropout: float = 0.0,
        patch_size: int = 224,
    ) -> None:
        is_basic = depth < 50
        attention = attention or {}

        def make_block(point: str, _: int, num_in: int, stride: int) -> nn.Module:
            width = WIDTHS[point]
            num_out = width if is_basic else _EXPANSION * width
            branch = _basic if is_basic else _bottleneck
            return ResidualBlock(
                branch(num_in, width, stride),
                num_in=num_in,
                num_out=num_out,
                stride=stride,
                attention=attention.get(point),
                gate=gate,
                title=f"{'basic block' if is_basic else 'bottleneck'} {width}",
            )

        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            stem=stem,
            depths=DEPTHS[depth],
            make_block=make_block,
            num_out=[width if is_basic else _EXPANSION * width for width in WIDTHS.values()],
            dropout=dropout,
            patch_size=patch_size,
        )


def _basic(num_in: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        make_conv2d(num_in, width, 3, stride=stride), make_conv2d(width, width, 3, relu=False)
    )


def _bottleneck(num_in: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        make_conv2d(num_in, width, 1, stride=stride),
        make_conv2d(width, width, 3),
        make_conv2d(width, _EXPANSION * width, 1, relu=False),
    )


def _make(
    depth: int,
    *,
    in_channels: int,
    num_classes: int,
    stem: Stem = "imagenet",
    gate: Gate = "standard",
    attention: Attention | None = None,
) -> SeResNet:
    """Returns an SE-ResNet; `attention` by stage, squeeze-and-excitation in all four unless given."""
    if attention is None:
        attention = SeResNetSettings(name="se_resnet").attention
    return SeResNet(
        depth=depth,
        in_channels=in_channels,
        num_classes=num_classes,
        stem=stem,
        gate=gate,
        attention=attention,
    )


se_resnet18: Callable[..., SeResNet] = partial(_make, 18)
se_resnet34: Callable[..., SeResNet] = partial(_make, 34)
se_resnet50: Callable[..., SeResNet] = partial(_make, 50)
se_resnet101: Callable[..., SeResNet] = partial(_make, 101)
se_resnet152: Callable[..., SeResNet] = partial(_make, 152)
