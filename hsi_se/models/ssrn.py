"""The spectral-spatial residual network: residual blocks along the spectrum, then over space.

Zhong, Li, Luo, Chapman: Spectral-Spatial Residual Network for Hyperspectral Image Classification,
https://doi.org/10.1109/TGRS.2017.2755542.
Axes: n patches, c features, d spectral depth, h rows, w cols.
"""

from torch import Tensor, nn

from hsi_se.models.network import Attention, Network, fill_slots, make_head

_NUM_COLLAPSED = 128  # features once the spectral depth is gone


class Ssrn(Network):
    """SSRN as in the paper's figure 3: two spectral and two spatial residual blocks.

    Departure from the paper: once its depth is 1, the 3-D features are convolved as 2-D ones, which is
    the same arithmetic.

    Args:
        num_bands: components of the input, k.
        patch_size: p.
        num_classes: C.
        features: of every residual block.
        dropout: before the dense layer.
        attention: the block after each named stage.
    """

    def __init__(
        self,
        *,
        num_bands: int,
        patch_size: int,
        num_classes: int,
        features: int = 24,
        dropout: float = 0.5,
        attention: Attention | None = None,
    ) -> None:
        super().__init__(num_bands=num_bands, patch_size=patch_size)
        depth = (num_bands - 7) // 2 + 1
        p = patch_size
        shapes: dict[str, tuple[int, ...]] = {
            "spectral_stem": (features, depth, p, p),
            "spectral_1": (features, depth, p, p),
            "spectral_2": (features, depth, p, p),
            "spatial_stem": (features, p - 2, p - 2),
            "spatial_1": (features, p - 2, p - 2),
            "spatial_2": (features, p - 2, p - 2),
        }
        self.stages = nn.ModuleDict(
            {
                "spectral_stem": nn.Sequential(
                    nn.Conv3d(1, features, (7, 1, 1), stride=(2, 1, 1)), nn.BatchNorm3d(features), nn.ReLU()
                ),
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
        )
        self.attention = fill_slots(attention or {}, shapes)
        self.head = make_head(features, num_classes, dropout=dropout)


class _Residual(nn.Module):
    """Two convolutions, 7 deep along the spectrum or 3 × 3 over space, and the input added to them."""

    def __init__(self, features: int, *, is_spectral: bool) -> None:
        super().__init__()
        if is_spectral:
            convs = [nn.Conv3d(features, features, (7, 1, 1), padding=(3, 0, 0)) for _ in range(2)]
            norms: list[nn.Module] = [nn.BatchNorm3d(features) for _ in range(2)]
        else:
            convs = [nn.Conv2d(features, features, 3, padding=1) for _ in range(2)]  # type: ignore[misc]
            norms = [nn.BatchNorm2d(features) for _ in range(2)]
        self.branch = nn.Sequential(convs[0], norms[0], nn.ReLU(), convs[1], norms[1])

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.branch(x)).relu()  # type: ignore[no-any-return]
