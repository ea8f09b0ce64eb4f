"""A plain 3-D CNN: HybridSN without its 2-D convolution, as a control for ablations."""

from torch import nn

from hsi_se.config import model as config
from hsi_se.models.hybridsn import make_conv3d, stage_shapes
from hsi_se.models.network import Network, fill_slots, make_head


class Cnn3d(Network):
    """HybridSN's three 3-D convolutions, global mean pooling and one dense layer.

    Shape: `(n, 1, k, p, p)` to `(n, C)`; at least 13 components and patches of 7 pixels.
    """

    def __init__(self, settings: config.Cnn3d, *, num_bands: int, patch_size: int, num_classes: int) -> None:
        super().__init__(num_bands=num_bands, patch_size=patch_size)
        shapes = stage_shapes("3d-2d", num_bands=num_bands, patch_size=patch_size)
        self.stages = nn.ModuleDict(
            {
                "conv3d_1": make_conv3d(1, 8, depth=7),
                "conv3d_2": make_conv3d(8, 16, depth=5),
                "conv3d_3": make_conv3d(16, 32, depth=3),
            }
        )
        self.attention = fill_slots(settings.attention, {point: shapes[point] for point in self.stages})
        self.head = make_head(32, num_classes, dropout=settings.dropout, is_3d=True)
