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
        width = WIDTHS[point]
        if settings.depth < 50:
            title, num_out = "basic block", width
            branch = nn.Sequential(
                make_conv2d(num_in, width, 3, stride=stride), make_conv2d(width, width, 3, relu=False)
            )
        else:
            title, num_out = "bottleneck", EXPANSION * width
            branch = nn.Sequential(
                make_conv2d(num_in, width, 1, stride=stride),
                make_conv2d(width, width, 3),
                make_conv2d(width, num_out, 1, relu=False),
            )
        return ResidualBlock(
            branch,
            num_in=num_in,
            num_out=num_out,
            stride=stride,
            attention=settings.attention.get(point),
            gate=settings.gate,
            title=f"{title} {width}",
        )
