"""What the networks of this folder share; n patches, k components, p × p pixels."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from hsi_se.attention.placement import build_attention
from hsi_se.config.model import Attention


class Network(nn.Module):
    """Named stages in order, an attention slot after each, and a head that ends in logits.

    Each kind is built from its section of the config, which says what every option does.

    Attributes:
        num_bands: components of the input, k.
        patch_size: p.
        stages: by name, which is also the name of the point behind each.
        attention: by point; a stage without attention has an empty slot, `nn.Identity()`.
        head: from the last features to logits.

    Shape: `(n, 1, k, p, p)` to `(n, C)`.
    """

    stages: nn.ModuleDict
    attention: nn.ModuleDict
    head: nn.Sequential

    def __init__(self, *, num_bands: int, patch_size: int) -> None:
        super().__init__()
        self.num_bands = num_bands
        self.patch_size = patch_size

    def forward(self, x: Tensor) -> Tensor:
        for point, stage in self.stages.items():
            x = self.attention[point](stage(x))
        return self.classify(x)

    def classify(self, x: Tensor) -> Tensor:
        """Returns the logits `(n, C)` of the last point's features."""
        logits: Tensor = self.head(x)
        return logits


def fill_slots(attention: Attention, shapes: Mapping[str, tuple[int, ...]]) -> nn.ModuleDict:
    """Returns the slot behind each stage, whose features have these shapes without the batch."""
    return nn.ModuleDict(
        {point: build_attention(attention.get(point), shape=shape) for point, shape in shapes.items()}
    )


class _ComponentsAsChannels(nn.Module):
    """Patches `(n, 1, k, p, p)` to `(n, k, p, p)`, and images as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(1) if x.ndim == 5 else x


def make_conv2d(num_in: int, num_out: int, size: int, *, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """A 2-D convolution that keeps the map's size at stride 1, batch norm, and perhaps a ReLU."""
    conv = nn.Conv2d(num_in, num_out, size, stride=stride, padding=size // 2, bias=False)
    stages: list[tuple[str, nn.Module]] = [("conv", conv), ("norm", nn.BatchNorm2d(num_out))]
    return nn.Sequential(OrderedDict([*stages, ("relu", nn.ReLU())] if relu else stages))


def make_stem(num_bands: int, num_out: int, *, kind: str) -> nn.Sequential:
    """The first stage of a 2-D network, which takes patches as well as images.

    `imagenet`, a 7 × 7 convolution and a pool, quarters its input; `small`, a 3 × 3 one, keeps its size, as
    patches need.
    """
    if kind == "small":
        return nn.Sequential(_ComponentsAsChannels(), make_conv2d(num_bands, num_out, 3))
    return nn.Sequential(
        _ComponentsAsChannels(),
        make_conv2d(num_bands, num_out, 7, stride=2),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def make_head(num_features: int, num_classes: int, *, dropout: float, is_3d: bool = False) -> nn.Sequential:
    """The mean of every feature, dropout, and one dense layer."""
    pool = nn.AdaptiveAvgPool3d(1) if is_3d else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(pool, nn.Flatten(), nn.Dropout(dropout), nn.Linear(num_features, num_classes))
