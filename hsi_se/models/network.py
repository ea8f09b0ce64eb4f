"""The base class of all networks, and their common layers.

Axes: n patches, k components, p × p pixels, C classes.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict

import torch
from torch import Tensor, nn

from hsi_se.attention import AttentionBlock
from hsi_se.attention.placement import build_attention
from hsi_se.config.model import Attention
from hsi_se.models.inference import evaluation_mode


class Network(nn.Module):
    """A network of named stages, with an attention slot after each, and a head that returns logits.

    Subclasses are built from their settings in `config.model`, which describe every option, and add the head.

    Shape: `(n, 1, k, p, p)` to `(n, C)`.
    """

    head: nn.Sequential

    def __init__(self, stages: dict[str, nn.Module], attention: Attention, *, num_bands: int, patch_size: int) -> None:
        super().__init__()
        self.num_bands = num_bands  # components of the input, k
        self.patch_size = patch_size
        self.stages = nn.ModuleDict(stages)
        self.shapes: dict[str, tuple[int, ...]] = {}  # of the stages' outputs, without the batch
        x = next(self.parameters()).new_empty(0, 1, num_bands, patch_size, patch_size)  # shapes need no patches
        with evaluation_mode(self):
            for point, stage in stages.items():
                x = stage(x)
                self.shapes[point] = tuple(x.shape[1:])
        self.attention = nn.ModuleDict(  # the block after each stage; an empty slot is `nn.Identity()`
            {point: build_attention(attention.get(point), shape=shape) for point, shape in self.shapes.items()}
        )

    def forward(self, x: Tensor) -> Tensor:
        for point, stage in self.stages.items():
            x = self.attention[point](stage(x))
        return self.classify(x)

    @property
    def early_points(self) -> list[str]:
        """The names of the stages up to the first attention block: all if there is none."""
        points = list(self.stages)
        blocks = [not isinstance(self.attention[point], nn.Identity) for point in points]
        return points[: blocks.index(True) + 1] if True in blocks else points

    def list_blocks(self) -> dict[str, AttentionBlock]:
        """Returns the attention blocks by where they are: at a point, or inside a stage."""
        return {
            name.removeprefix("attention.").removeprefix("stages."): module
            for name, module in self.named_modules()
            if isinstance(module, AttentionBlock)
        }

    def classify(self, x: Tensor) -> Tensor:
        """Returns the logits `(n, C)` for the features of the last point."""
        logits: Tensor = self.head(x)
        return logits


class Drawn(nn.Module, ABC):
    """A layer with weights other than those of convolutions and dense layers; `models.initialize` has them drawn."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> None:
        """Draws them anew, without gradients; all randomness is that of the generator."""


class ComponentsAsChannels(nn.Module):
    """Turns patches `(n, 1, k, p, p)` into images `(n, k, p, p)`; leaves images unchanged."""

    def extra_repr(self) -> str:
        return "components as channels"

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(1) if x.ndim == 5 else x


def make_conv2d(num_in: int, num_out: int, size: int, *, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Returns a 2-D convolution with padding, batch norm and an optional ReLU; stride 1 keeps the size."""
    conv = nn.Conv2d(num_in, num_out, size, stride=stride, padding=size // 2, bias=False)
    layers: dict[str, nn.Module] = {"conv": conv, "norm": nn.BatchNorm2d(num_out)}
    return nn.Sequential(OrderedDict(layers | ({"relu": nn.ReLU()} if relu else {})))


def make_stem(num_bands: int, num_out: int, *, kind: str) -> nn.Sequential:
    """Returns the first stage of a 2-D network, which accepts patches and images.

    `imagenet` is a 7 × 7 convolution and a max-pool, and divides the input's sides by 4. `small` is a 3 × 3
    convolution that keeps the size, for small patches.
    """
    if kind == "small":
        return nn.Sequential(ComponentsAsChannels(), make_conv2d(num_bands, num_out, 3))
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(ComponentsAsChannels(), make_conv2d(num_bands, num_out, 7, stride=2), pool)


def make_head(num_features: int, num_classes: int, *, dropout: float, is_3d: bool = False) -> nn.Sequential:
    """Returns a head of global mean pooling, dropout and one dense layer."""
    pool = nn.AdaptiveAvgPool3d(1) if is_3d else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(pool, nn.Flatten(), nn.Dropout(dropout), nn.Linear(num_features, num_classes))
