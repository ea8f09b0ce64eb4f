"""Spectrum first, space afterwards: dense layers on every pixel, then a learned weighted mean over the patch.

The dense layers are 1 × 1 convolutions, as in Lin, Chen, Yan: Network In Network, https://arxiv.org/abs/1312.4400.
Neighbours enter only through a mean, which cannot learn the shapes and borders of the training fields.
Axes: n patches, k components, p × p pixels, c features, C classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.network import ComponentsAsChannels, Network, make_conv2d, make_head


@register_network("spectrum_first", settings=config.SpectrumFirst)
class SpectrumFirst(Network):
    """Two dense layers with batch norm and ReLU on each pixel, a weighted mean over the patch, and a dense layer.

    The point `bands` comes before the first layer, so that attention can weigh the components themselves.

    Shape: `(n, 1, k, p, p)` to `(n, C)`, for any k and p.
    """

    def __init__(self, settings: config.SpectrumFirst, *, num_bands: int, patch_size: int, num_classes: int) -> None:
        features = settings.features
        stages = {
            "bands": ComponentsAsChannels(),
            "spectral_1": make_conv2d(num_bands, features, 1),
            "spectral_2": make_conv2d(features, features, 1),
            "space": WeightedMean(features, patch_size=patch_size),
        }
        super().__init__(stages, settings.attention, num_bands=num_bands, patch_size=patch_size)
        self.head = make_head(features, num_classes, dropout=settings.dropout)


class WeightedMean(nn.Module):
    """A mean over the pixels of the patch with learned weights, `(n, c, p, p)` to `(n, c, 1, 1)`.

    Each feature has weights of its own: a softmax over the p² pixels, equal before training. Larger features
    `(n, c, h, w)` give the mean of every patch in them, `(n, c, h - p + 1, w - p + 1)`.
    """

    def __init__(self, features: int, *, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.scores = nn.Parameter(torch.zeros(features, patch_size**2))

    def extra_repr(self) -> str:
        return "weighted mean over the patch"

    def forward(self, x: Tensor) -> Tensor:
        weight = self.scores.softmax(1)
        if x.shape[2:] == (self.patch_size, self.patch_size):
            return (x.flatten(2) * weight).sum(2)[..., None, None]
        return F.conv2d(x, weight.view(len(weight), 1, self.patch_size, -1), groups=len(weight))
