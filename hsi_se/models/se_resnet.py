"""Residual networks with attention in every block.

Hu, Shen, Albanie, Sun, Wu: Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507.
"""

from torch import nn

from hsi_se.config import model as config
from hsi_se.models.network import make_conv2d
from hsi_se.models.residual import EXPANSION, WIDTHS, ResidualBlock, ResidualNetwork


class SeResNet(ResidualNetwork):
    """SE-ResNet of depth 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).

    The first 1 × 1 convolution of a bottleneck is the strided one, as in the paper.
    """

    @staticmethod
    def make_block(settings: config.SeResNet, point: str, *, num_in: int, stride: int) -> ResidualBlock:
        width, is_basic = WIDTHS[point], settings.depth < 50
        return ResidualBlock(
            (_basic if is_basic else _bottleneck)(num_in, width, stride),
            num_in=num_in,
            num_out=width if is_basic else EXPANSION * width,
            stride=stride,
            attention=settings.attention.get(point),
            gate=settings.gate,
            title=f"{'basic block' if is_basic else 'bottleneck'} {width}",
        )


def _basic(num_in: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        make_conv2d(num_in, width, 3, stride=stride), make_conv2d(width, width, 3, relu=False)
    )


def _bottleneck(num_in: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        make_conv2d(num_in, width, 1, stride=stride),
        make_conv2d(width, width, 3),
        make_conv2d(width, EXPANSION * width, 1, relu=False),
    )
