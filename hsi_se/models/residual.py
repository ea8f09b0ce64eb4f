"""The trunk of every residual network here: a stem, four stages of blocks, a mean, one dense layer.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385.
Axes: n images, c channels, h rows, w cols.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from hsi_se.attention.placement import build_attention
from hsi_se.config_model import AttentionSettings
from hsi_se.models.network import ComponentsAsChannels, Network, RepeatedBlocks, make_conv2d, make_head

Gate = Literal["standard", "pre", "post", "identity"]
Stem = Literal["small", "imagenet"]
WIDTHS = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}


class ResidualBlock(nn.Module):
    """Adds a branch to its input, and gates one of the two, the branch's input or the sum.

    `gate` is where the attention sits (Hu et al. 2018, figure 5): `standard` on the branch before the
    addition, `pre` before the branch, `post` after the addition's ReLU, `identity` on the shortcut.

    Shape: `(n, num_in, h, w)` to `(n, num_out, h / stride, w / stride)`.
    """

    def __init__(
        self,
        branch: nn.Module,
        *,
        num_in: int,
        num_out: int,
        stride: int,
        attention: AttentionSettings | None,
        gate: Gate = "standard",
        title: str = "",
    ) -> None:
        super().__init__()
        self.branch = branch
        is_projected = stride > 1 or num_in != num_out
        self.shortcut = (
            make_conv2d(num_in, num_out, 1, stride=stride, relu=False) if is_projected else nn.Identity()
        )
        self.gate = gate
        channels = num_in if gate == "pre" else num_out
        self.attention = (
            build_attention(attention, shape=(channels, 1, 1)) if attention is not None else nn.Identity()
        )
        self.title = title if attention is None else f"{title} with {attention.kind} {gate}"

    def extra_repr(self) -> str:
        return self.title

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = self.shortcut(x)  # (n, num_out, h/stride, w/stride)
        match self.gate:
            case "standard":
                total = shortcut + self.attention(self.branch(x))
            case "pre":
                total = shortcut + self.branch(self.attention(x))
            case "post":
                return self.attention((shortcut + self.branch(x)).relu())  # type: ignore[no-any-return]
            case "identity":
                total = self.attention(shortcut) + self.branch(x)
        return total.relu()  # type: ignore[no-any-return]


class ResidualNetwork(Network):
    """Stages `stem`, `layer1` … `layer4`, and a head.

    Args:
        in_channels: of the input; the components of a patch, k.
        num_classes: C.
        stem: `imagenet`, a 7 × 7 convolution and a pool that quarter the input, or `small`, a 3 × 3 one
            that keeps its size, as patches need.
        depths: blocks in each of the four stages.
        make_block: a block from `(point, number in the stage, channels in, stride)`.
        num_out: channels after each stage.
        dropout: before the dense layer.
        patch_size: rows and cols of the input.

    Shape: `(n, 1, k, p, p)` or `(n, in_channels, h, w)` to `(n, C)`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        stem: Stem,
        depths: Sequence[int],
        make_block: Callable[[str, int, int, int], nn.Module],
        num_out: Sequence[int],
        dropout: float,
        patch_size: int,
    ) -> None:
        super().__init__(num_bands=in_channels, patch_size=patch_size)
        self.stages = nn.ModuleDict({"stem": _make_stem(in_channels, stem)})
        channels = WIDTHS["layer1"]
        for point, depth, out in zip(WIDTHS, depths, num_out, strict=True):
            blocks = []
            for number in range(depth):
                stride = 2 if number == 0 and point != "layer1" else 1
                blocks.append(make_block(point, number, channels, stride))
                channels = out
            self.stages[point] = RepeatedBlocks(blocks)
        self.attention = nn.ModuleDict({point: nn.Identity() for point in self.stages})  # in the blocks
        self.head = make_head(channels, num_classes, dropout=dropout)


def _make_stem(in_channels: int, stem: Stem) -> nn.Sequential:
    channels = WIDTHS["layer1"]
    if stem == "small":
        return nn.Sequential(ComponentsAsChannels(), make_conv2d(in_channels, channels, 3))
    return nn.Sequential(
        ComponentsAsChannels(),
        make_conv2d(in_channels, channels, 7, stride=2),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
