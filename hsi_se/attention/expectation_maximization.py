"""Expectation-maximization attention: adds a low-rank reconstruction of the features from a few bases.

Li, Zhong, Wu, Yang, Lin, Liu: Expectation-Maximization Attention Networks, https://arxiv.org/abs/1907.13426.
Axes: n patches, c features, k bases.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.attention import AttentionBlock
from hsi_se.config import model as config
from hsi_se.config.registry import register_attention

_MOMENTUM = 0.9  # of the moving average of the bases, section 3.4


@register_attention("em", settings=config.ExpectationMaximization)
class ExpectationMaximization(AttentionBlock):
    """Adds `norm(W₂ relu(μ zᵀ))` to its input, with k bases μ and their weights z at each position (eqs. 9-13).

    In each step, z is the softmax of the products of embedded features W₁ x and bases, and the bases are means with
    weights z, scaled to length 1. The first bases are not trained: they are a moving average over the batches.
    Departures from the paper's code: that average starts at cosines, and has at most c bases; gradients flow through
    the steps to W₁; there is no ReLU after the sum.

    Shape: `(n, c, h, w)`, or `(n, c, d, h, w)` when 3-D; the output has the same shape.
    """

    bases: Tensor  # (c, k)

    def __init__(
        self, channels: int, num_out: int = 0, *, is_3d: bool = False, bases: int = 64, steps: int = 3
    ) -> None:
        super().__init__(channels, num_out)
        bases = min(bases, channels)
        self.description = f"expectation-maximization {channels}, {bases} bases"
        self.steps = steps
        conv, norm = (nn.Conv3d, nn.BatchNorm3d) if is_3d else (nn.Conv2d, nn.BatchNorm2d)
        self.embed, self.out = conv(channels, channels, 1), conv(channels, channels, 1, bias=False)
        self.norm = norm(channels)
        angles = torch.outer(torch.arange(channels) + 0.5, torch.arange(bases)) * (math.pi / channels)
        self.register_buffer("bases", F.normalize(angles.cos(), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        features = self.embed(x).flatten(2)  # (n, c, positions)
        bases = self.bases.clone()  # (c, k), later (n, c, k); the buffer changes below
        for _ in range(self.steps):
            weights = (features.transpose(1, 2) @ bases).softmax(2)  # (n, positions, k)
            bases = F.normalize(features @ (weights / (weights.sum(1, keepdim=True) + 1e-6)), dim=1)
        if self.training:
            with torch.no_grad():
                self.bases.lerp_(bases.mean(0).to(self.bases.dtype), 1 - _MOMENTUM)
        update: Tensor = self.norm(self.out((bases @ weights.transpose(1, 2)).view_as(x).relu()))
        return x + (update if self.strength is None else self.strength * update)
