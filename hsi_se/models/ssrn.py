"""The spectral-spatial residual network: residual blocks along the spectrum, then over space.

Zhong, Li, Luo, Chapman: Spectral-Spatial Residual Network for Hyperspectral Image Classification,
https://doi.org/10.1109/TGRS.2017.2755542.
Axes: n patches, c features, d spectral depth, h rows, w cols.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.convolution import SpectralConv3d
from hsi_se.models.network import Network, make_head

_NUM_COLLAPSED = 128  # features after the spectral depth is reduced to 1


@register_network("ssrn", settings=config.Ssrn)
class Ssrn(Network):
    """SSRN as in the paper's figure 3: two spectral and two spatial residual blocks.

    Departure from the paper: features of depth 1 are convolved in 2-D instead of 3-D, with the same result.

    Shape: `(n, 1, k, p, p)` to `(n, C)`, with k at least 7 and p at least 3.
    """

    def __init__(self, settings: config.Ssrn, *, num_bands: int, patch_size: int, num_classes: int) -> None:
        features, depth = settings.features, (num_bands - 7) // 2 + 1
        first = nn.Conv3d(1, features, (7, 1, 1), stride=(2, 1, 1))
        stages = {
            "spectral_stem": nn.Sequential(first, nn.BatchNorm3d(features), nn.ReLU()),
            "spectral_1": _Residual(features, is_spectral=True),
            "spectral_2": _Residual(features, is_spectral=True),
            "spatial_stem": nn.Sequential(
                nn.Conv3d(features, _NUM_COLLAPSED, (depth, 1, 1)),  # (n, 128, 1, p, p)
                nn.BatchNorm3d(_NUM_COLLAPSED),
                nn.ReLU(),
                nn.Flatten(1, 2),  # (n, 128, p, p)
                nn.Conv2d(_NUM_COLLAPSED, features, 3),
                nn.BatchNorm2d(features),
                nn.ReLU(),
            ),
            "spatial_1": _Residual(features, is_spectral=False),
            "spatial_2": _Residual(features, is_spectral=False),
        }
        super().__init__(stages, settings.attention, num_bands=num_bands, patch_size=patch_size)
        self.head = make_head(features, num_classes, dropout=settings.dropout)


class _Residual(nn.Module):
    """A residual block of two convolutions, of length 7 along the spectrum or 3 × 3 over space."""

    def __init__(self, features: int, *, is_spectral: bool) -> None:
        super().__init__()
        make_conv: Callable[[], nn.Module] = partial(nn.Conv2d, features, features, 3, padding=1)
        if is_spectral:
            make_conv = partial(SpectralConv3d, features, features, (7, 1, 1), padding=(3, 0, 0))
        norm = nn.BatchNorm3d if is_spectral else nn.BatchNorm2d
        self.branch = nn.Sequential(make_conv(), norm(features), nn.ReLU(), make_conv(), norm(features))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.branch(x)).relu()  # type: ignore[no-any-return]
