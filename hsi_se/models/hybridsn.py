"""HybridSN: 3-D convolutions over spectrum and space and a 2-D convolution, with attention points.

Roy, Krishna, Dubey, Chaudhuri: HybridSN: Exploring 3-D-2-D CNN Feature Hierarchy for Hyperspectral
Image Classification, https://arxiv.org/abs/1902.06701.
Axes: n patches, c features, d spectral depth, h rows, w cols.
"""

import itertools
import math

from torch import Tensor, nn

from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.convolution import BatchNorm3d, Conv3d
from hsi_se.models.network import Network


@register_network("hybridsn", settings=config.HybridSN)
class HybridSN(Network):
    """HybridSN as five named stages, an attention slot after each, and three dense layers.

    In the paper's order, `3d-2d`, the stages are conv3d_1, conv3d_2, conv3d_3, fold, conv2d. In
    `2d-3d` they are fold, conv2d, conv3d_1, conv3d_2, conv3d_3: the input's depth is folded into
    features first, and the 2-D features become the spectral depth of the 3-D convolutions.

    Departures from the paper: batch normalisation between each convolution and its ReLU (none with
    `norm: none`), and logits as output instead of a softmax.

    Shape: `(n, 1, k, p, p)` to `(n, C)`, with p at least 9, and k at least 13 in `3d-2d`.
    """

    def __init__(self, settings: config.HybridSN, *, num_bands: int, patch_size: int, num_classes: int) -> None:
        first, second, third, flat = (_scale(count, settings.width) for count in (8, 16, 32, 64))
        norm, is_3d_first = settings.norm, settings.order == "3d-2d"
        num_folded = third * (num_bands - 12) if is_3d_first else num_bands
        stages_3d: dict[str, nn.Module] = {
            "conv3d_1": make_conv(1, first, depth=7, norm=norm, is_unfolding=not is_3d_first),
            "conv3d_2": make_conv(first, second, depth=5, norm=norm),
            "conv3d_3": make_conv(second, third, depth=3, norm=norm),
        }
        stages_2d = {"fold": Fold(1, 2), "conv2d": make_conv(num_folded, flat, norm=norm)}
        stages = stages_3d | stages_2d if is_3d_first else stages_2d | stages_3d
        super().__init__(stages, settings.attention, num_bands=num_bands, patch_size=patch_size)
        self.order = settings.order
        *last, rows, cols = list(self.shapes.values())[-1]  # (c, h, w) or (c, d, h, w)
        self.pool: nn.Module = nn.Identity()  # the dense layers see every pixel, as in the paper
        if settings.pool == "mean":
            rows = cols = 1
            self.pool = nn.AdaptiveAvgPool2d(1) if is_3d_first else nn.AdaptiveAvgPool3d((None, 1, 1))
        sizes = math.prod((*last, rows, cols)), _scale(256, settings.width), _scale(128, settings.width)
        hidden: list[nn.Module] = []
        for num_in, num_out in itertools.pairwise(sizes):
            relu = nn.ReLU() if settings.dense_relu else nn.Identity()
            hidden += [nn.Linear(num_in, num_out), relu, nn.Dropout(settings.dropout)]
        self.head = nn.Sequential(*hidden, nn.Linear(sizes[-1], num_classes))

    def classify(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(x).flatten(1))  # (n, C)
        return logits


def _scale(count: int, width: float) -> int:
    return max(1, round(count * width))


class Fold(nn.Flatten):
    """Folds depth into features, `(n, c, d, h, w)` to `(n, c·d, h, w)`; channels stay innermost if they are."""

    def extra_repr(self) -> str:
        return "depth into features"

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1 or x.is_contiguous():
            return super().forward(x)
        return x.permute(0, 3, 4, 1, 2).flatten(3).permute(0, 3, 1, 2)


def make_conv(
    num_in: int, num_out: int, *, depth: int | None = None, norm: str = "batch", is_unfolding: bool = False
) -> nn.Sequential:
    """Returns an unpadded 3 × 3 or `depth` × 3 × 3 convolution stage; unfolding turns 2-D features into depth."""
    stage = nn.Sequential()
    if is_unfolding:
        stage.append(nn.Unflatten(1, (1, -1)))  # (n, c, h, w) to (n, 1, d=c, h, w)
    stage.add_module("conv", Conv3d(num_in, num_out, (depth, 3, 3)) if depth else nn.Conv2d(num_in, num_out, 3))
    make_norm = BatchNorm3d if depth else nn.BatchNorm2d
    stage.add_module("norm", make_norm(num_out) if norm == "batch" else nn.Identity())
    stage.add_module("relu", nn.ReLU())
    return stage
