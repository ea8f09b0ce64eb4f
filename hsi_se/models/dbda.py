"""The double-branch dual-attention network: dense convolutions along the spectrum and over space, each with attention.

Li, Zheng, Duan, Yang, Wang: Classification of Hyperspectral Image Based on Double-Branch Dual-Attention Mechanism
Network, Remote Sensing 12(3) (2020) 582, https://doi.org/10.3390/rs12030582.
Axes: n patches, k components, p × p pixels, c features, d spectral depth, h rows, w cols, C classes.
"""

import torch
from torch import Tensor, nn

from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.convolution import SpectralConv3d
from hsi_se.models.network import ComponentsAsChannels, Network

_FIRST, _GROWTH, _LAYERS = 24, 12, 3  # features of a branch's first convolution, and of each that follows
_NUM_OUT = _FIRST + _LAYERS * _GROWTH  # features of a branch


@register_network("dbda", settings=config.Dbda)
class Dbda(Network):
    """DBDA with the layers of the authors' code: 382,328 parameters for 200 bands and 16 classes.

    The stages are both branches, side by side, and both attention blocks. The first half of the features is spectral.

    Departures: features of depth 1 are convolved in 2-D instead of 3-D, with the same result. The attention is that of
    the paper's equations. The authors' code multiplies its result by the features once more, weighs channels that
    differ instead of those that are alike, and has a convolution of 19 parameters that it does not use.

    Shape: `(n, 1, k, p, p)` to `(n, C)`, with k at least 7.
    """

    def __init__(self, settings: config.Dbda, *, num_bands: int, patch_size: int, num_classes: int) -> None:
        stages = {"branches": _Branches(num_bands), "dual_attention": DualAttention(_NUM_OUT)}
        super().__init__(stages, settings.attention, num_bands=num_bands, patch_size=patch_size)
        pool = nn.Dropout(settings.dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Sequential(_make_norm(2 * _NUM_OUT), nn.Mish(), *pool, nn.Linear(2 * _NUM_OUT, num_classes))


def _make_norm(channels: int, *, is_3d: bool = False) -> nn.Module:
    return (nn.BatchNorm3d if is_3d else nn.BatchNorm2d)(channels, eps=1e-3)


class _DenseBlock(nn.Module):
    """Three convolutions of length 7 along the spectrum or 3 × 3 over space, each of all features before it."""

    def __init__(self, *, is_spectral: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for number in range(_LAYERS):
            num_in = _FIRST + number * _GROWTH
            conv: nn.Module = nn.Conv2d(num_in, _GROWTH, 3, padding=1)
            if is_spectral:
                conv = SpectralConv3d(num_in, _GROWTH, (7, 1, 1), padding=(3, 0, 0))
            self.layers.append(nn.Sequential(_make_norm(num_in, is_3d=is_spectral), nn.Mish(), conv))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class _Branches(nn.Module):
    """Patches `(n, 1, k, p, p)` to the features of both branches, `(n, 120, p, p)`."""

    def __init__(self, num_bands: int) -> None:
        super().__init__()
        depth = (num_bands - 7) // 2 + 1
        self.spectral = nn.Sequential(
            nn.Conv3d(1, _FIRST, (7, 1, 1), stride=(2, 1, 1)),  # (n, 24, d, p, p)
            _DenseBlock(is_spectral=True),  # (n, 60, d, p, p)
            _make_norm(_NUM_OUT, is_3d=True),
            nn.Mish(),
            nn.Conv3d(_NUM_OUT, _NUM_OUT, (depth, 1, 1)),  # (n, 60, 1, p, p)
            nn.Flatten(1, 2),
        )
        first = nn.Conv2d(num_bands, _FIRST, 1)
        self.spatial = nn.Sequential(ComponentsAsChannels(), first, _DenseBlock(is_spectral=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.spectral(x), self.spatial(x)], 1)


class DualAttention(nn.Module):
    """Channel attention on the first half of the features, position attention on the second.

    Both add weighted sums, over channels or pixels, to their input, scaled by a factor that starts at 0. The weights
    are a softmax of products: of two channels, or of a query and a key with an eighth of the features.

    Shape: `(n, 2·c, h, w)`; the output has the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.channel_strength, self.position_strength = (nn.Parameter(torch.zeros(1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        spectral, spatial = x.chunk(2, 1)
        rows = spectral.flatten(2)  # (n, c, h·w)
        of_channels = (rows @ rows.transpose(1, 2)).softmax(2) @ rows
        query, key, value = (conv(spatial).flatten(2) for conv in (self.query, self.key, self.value))
        of_pixels = value @ (query.transpose(1, 2) @ key).softmax(2).transpose(1, 2)
        update = torch.cat([self.channel_strength * of_channels, self.position_strength * of_pixels], 1)
        return x + update.view_as(x)
