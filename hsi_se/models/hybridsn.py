"""HybridSN: 3-D convolutions over spectrum and space, folded into a 2-D one, with a slot after each.

Roy, Krishna, Dubey, Chaudhuri: HybridSN: Exploring 3-D-2-D CNN Feature Hierarchy for Hyperspectral
Image Classification, https://arxiv.org/abs/1902.06701.
Axes: n patches, c features, d spectral depth, h rows, w cols.
"""

import itertools
import math
from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from hsi_se.models.network import Attention, Network, fill_slots


class HybridSN(Network):
    """Five named stages, an attention slot after each, and three dense layers.

    In the paper's order, `3d-2d`, the stages are conv3d_1, conv3d_2, conv3d_3, fold, conv2d. In
    `2d-3d` the input's depth is folded into features first: fold, conv2d, conv3d_1, conv3d_2,
    conv3d_3, where the 2-D features become the spectral depth of the 3-D convolutions.

    Departures from the paper: batch normalisation between each convolution and its ReLU, and a
    network that ends in logits instead of a softmax; `norm="none"` restores the first.

    Args:
        num_bands: components of the input, k.
        patch_size: p.
        num_classes: C.
        order: which convolutions come first.
        width: factor on the number of features of every convolution and hidden dense layer.
        norm: what stands between a convolution and its ReLU.
        pool: whether the dense layers see every place of the last map, as in the paper, or the places' mean.
        dropout: probability after each of the two hidden dense layers.
        dense_relu: whether these have a ReLU, as in the paper.
        attention: the block after each named stage; a stage without one has an empty slot.

    Shape: `(n, 1, k, p, p)` to `(n, C)`.
    """

    def __init__(
        self,
        *,
        num_bands: int,
        patch_size: int,
        num_classes: int,
        order: Literal["3d-2d", "2d-3d"] = "3d-2d",
        width: float = 1.0,
        norm: Literal["batch", "none"] = "batch",
        pool: Literal["none", "mean"] = "none",
        dropout: float = 0.4,
        dense_relu: bool = True,
        attention: Attention | None = None,
    ) -> None:
        super().__init__(num_bands=num_bands, patch_size=patch_size)
        self.order = order
        shapes = stage_shapes(order, num_bands=num_bands, patch_size=patch_size, width=width)
        self.shapes = shapes  # of each stage's output, without the batch
        num_features = {point: shape[0] for point, shape in shapes.items()}
        stages = {
            "conv3d_1": make_conv3d(
                1, num_features["conv3d_1"], depth=7, norm=norm, is_unfolding=order == "2d-3d"
            ),
            "conv3d_2": make_conv3d(num_features["conv3d_1"], num_features["conv3d_2"], depth=5, norm=norm),
            "conv3d_3": make_conv3d(num_features["conv3d_2"], num_features["conv3d_3"], depth=3, norm=norm),
            "fold": Fold(1, 2),
            "conv2d": _conv2d(num_features["fold"], num_features["conv2d"], norm=norm),
        }
        self.stages = nn.ModuleDict({point: stages[point] for point in shapes})
        self.attention = fill_slots(attention or {}, shapes)
        *last, _, _ = list(shapes.values())[-1]  # (c,) or (c, d) of the last stage
        self.pool: nn.Module = nn.Identity()
        num_places = (patch_size - 8) ** 2
        if pool == "mean":
            num_places = 1
            self.pool = nn.AdaptiveAvgPool2d(1) if order == "3d-2d" else nn.AdaptiveAvgPool3d((None, 1, 1))
        sizes = (math.prod(last) * num_places, _scale(256, width), _scale(128, width))
        hidden: list[nn.Module] = []
        for num_in, num_out in itertools.pairwise(sizes):
            hidden += [
                nn.Linear(num_in, num_out),
                nn.ReLU() if dense_relu else nn.Identity(),
                nn.Dropout(dropout),
            ]
        self.head = nn.Sequential(*hidden, nn.Linear(sizes[-1], num_classes))

    def classify(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(x).flatten(1))  # (n, C)
        return logits


def stage_shapes(
    order: str, *, num_bands: int, patch_size: int, width: float = 1.0
) -> dict[str, tuple[int, ...]]:
    """Returns each stage's output shape without the batch, in the order in which they run."""
    k, p = num_bands, patch_size
    first, second, third, flat = (_scale(count, width) for count in (8, 16, 32, 64))
    if order == "3d-2d":
        return {
            "conv3d_1": (first, k - 6, p - 2, p - 2),
            "conv3d_2": (second, k - 10, p - 4, p - 4),
            "conv3d_3": (third, k - 12, p - 6, p - 6),
            "fold": (third * (k - 12), p - 6, p - 6),
            "conv2d": (flat, p - 8, p - 8),
        }
    return {
        "fold": (k, p, p),
        "conv2d": (flat, p - 2, p - 2),
        "conv3d_1": (first, flat - 6, p - 4, p - 4),
        "conv3d_2": (second, flat - 10, p - 6, p - 6),
        "conv3d_3": (third, flat - 12, p - 8, p - 8),
    }


def _scale(count: int, width: float) -> int:
    return max(1, round(count * width))


class Fold(nn.Flatten):
    """Depth into features: `(n, c, d, h, w)` to `(n, c·d, h, w)`, channels last if they were."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1 or not x.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(x)
        return x.permute(0, 3, 4, 1, 2).flatten(3).permute(0, 3, 1, 2)


def make_conv3d(
    num_in: int, num_out: int, *, depth: int, norm: str = "batch", is_unfolding: bool = False
) -> nn.Sequential:
    """A valid convolution `depth` × 3 × 3; one that unfolds reads 2-D features as spectral depth."""
    stage = nn.Sequential()
    if is_unfolding:
        stage.append(nn.Unflatten(1, (1, -1)))  # (n, c, h, w) to (n, 1, d=c, h, w)
    stage.add_module("conv", nn.Conv3d(num_in, num_out, (depth, 3, 3)))
    stage.add_module("norm", nn.BatchNorm3d(num_out) if norm == "batch" else nn.Identity())
    stage.add_module("relu", nn.ReLU())
    return stage


def _conv2d(num_in: int, num_out: int, *, norm: str) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(num_in, num_out, 3),
            norm=nn.BatchNorm2d(num_out) if norm == "batch" else nn.Identity(),
            relu=nn.ReLU(),
        )
    )
