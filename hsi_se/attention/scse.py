"""scSE: a gate per channel, as in squeeze-and-excitation, plus a gate per position.

Roy, Navab, Wachinger: Concurrent Spatial and Channel Squeeze & Excitation, https://arxiv.org/abs/1803.02579.
Axes: n patches, c features.
"""

from torch import Tensor, nn

from hsi_se.attention import AttentionBlock
from hsi_se.config import model as config
from hsi_se.config.registry import register_attention


@register_attention("scse", settings=config.ConcurrentSqueezeExcite)
class ConcurrentSqueezeExcite(AttentionBlock):
    """Scales by the sum of a channel gate `sigmoid(W₁ relu(W₂ z))` and a position gate `sigmoid(W x)` (section 2).

    z are the channel means, and W is a 1 × 1 convolution to one feature. Departures from the paper: all three layers
    have biases, and at 3-D points a position includes the spectral depth.

    Shape: `(n, c, h, w)`, or `(n, c, d, h, w)` when 3-D; the output has the same shape.
    """

    def __init__(self, channels: int, num_out: int = 0, *, is_3d: bool = False, reduction: int = 2) -> None:
        super().__init__(channels, num_out)
        hidden = max(1, round(channels / reduction))
        self.description = f"scSE {channels}→{hidden}→{channels}"
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.places = (nn.Conv3d if is_3d else nn.Conv2d)(channels, 1, 1)

    def excitation(self, x: Tensor) -> Tensor:
        """Returns the channel gates `(n, c)` for features `x`."""
        return self.squash(self.mlp(x.flatten(2).mean(2)), neutral=0.5)

    def forward(self, x: Tensor) -> Tensor:
        of_channels = self.excitation(x)  # (n, c)
        of_places = self.squash(self.places(x), neutral=0.5)  # (n, 1, …)
        return x * (of_channels.view(*of_channels.shape, *[1] * (x.ndim - 2)) + of_places)
