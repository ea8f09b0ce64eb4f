"""A plain 3-D CNN: HybridSN without its 2-D convolution, as a control for ablations."""

from torch import nn

from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.hybridsn import make_conv
from hsi_se.models.network import Network, make_head


@register_network("cnn3d", settings=config.Cnn3d)
class Cnn3d(Network):
    """HybridSN's three 3-D convolutions, global mean pooling and one dense layer.

    Shape: `(n, 1, k, p, p)` to `(n, C)`; at least 13 components and patches of 7 pixels.
    """

    def __init__(self, settings: config.Cnn3d, *, num_bands: int, patch_size: int, num_classes: int) -> None:
        stages: dict[str, nn.Module] = {
            "conv3d_1": make_conv(1, 8, depth=7),
            "conv3d_2": make_conv(8, 16, depth=5),
            "conv3d_3": make_conv(16, 32, depth=3),
        }
        super().__init__(stages, settings.attention, num_bands=num_bands, patch_size=patch_size)
        self.head = make_head(32, num_classes, dropout=settings.dropout, is_3d=True)
