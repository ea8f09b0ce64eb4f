"""Residual networks with attention in every block: a stem, four stages of blocks, mean pooling, one dense layer.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385.
Hu, Shen, Albanie, Sun, Wu: Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507.
Gao, Cheng, Zhao, Zhang, Yang, Torr: Res2Net, https://arxiv.org/abs/1904.01169.
Axes: n images, c channels, h rows, w cols; s groups.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from hsi_se.attention.placement import build_attention
from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.network import Network, make_conv2d, make_head, make_stem

# Blocks in each of the four stages, by depth.
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
Strides = tuple[int, int]  # of the first two convolutions of a block
EXPANSION = 4  # ratio of a bottleneck's output channels to its width


class ResidualBlock(nn.Module):
    """Adds a branch to a shortcut and applies attention at one of four positions.

    `gate` is the position (Hu et al. 2018, figure 5): `standard` after the branch, before the addition;
    `pre` before the branch; `post` after the addition's ReLU; `identity` on the shortcut.

    Shape: `(n, num_in, side, side)` to `(n, num_out, side / stride, side / stride)`.
    """

    def __init__(
        self,
        branch: nn.Module,
        *,
        num_in: int,
        num_out: int,
        side: int = 1,
        stride: int,
        attention: config.AttentionSettings | None,
        gate: Literal["standard", "pre", "post", "identity"],
        title: str = "",
    ) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or num_in != num_out:
            self.shortcut = make_conv2d(num_in, num_out, 1, stride=stride, relu=False)
        self.gate = gate
        channels, side = (num_in, side) if gate == "pre" else (num_out, -(-side // stride))
        self.attention = build_attention(attention, shape=(channels, side, side))
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


@register_network("se_resnet", settings=config.SeResNet)
class SeResNet(Network):
    """A network of stages `stem`, `layer1` … `layer4` and a head.

    Depths 18 and 34 have basic blocks, 50, 101 and 152 bottlenecks. Attention is inside the blocks; slots are empty.

    Shape: `(n, 1, k, p, p)` or images `(n, k, h, w)` to `(n, C)`.
    """

    def __init__(
        self, settings: config.SeResNet | config.Res2Net, *, num_bands: int, patch_size: int, num_classes: int
    ) -> None:
        num_in, gate = 64, settings.gate if isinstance(settings, config.SeResNet) else "standard"
        side = patch_size if settings.stem == "small" else -(-patch_size // 4)
        stages: dict[str, nn.Module] = {"stem": make_stem(num_bands, num_in, kind=settings.stem)}
        for layer, depth in enumerate(DEPTHS[settings.depth]):
            point, width = f"layer{layer + 1}", 64 * 2**layer
            attention = settings.attention.get(point)
            num_out = width if settings.depth < 50 else EXPANSION * width
            blocks = []
            for number in range(depth):
                stride = 2 if number == 0 and layer else 1
                strides = (1, stride) if settings.stride_on == "3x3" else (stride, 1)
                branch, title = self.make_branch(settings, num_in, width, strides=strides)
                sizes = {"num_in": num_in, "num_out": num_out, "side": side, "stride": stride}
                blocks.append(ResidualBlock(branch, **sizes, attention=attention, gate=gate, title=title))
                num_in, side = num_out, -(-side // stride)
            stages[point] = _RepeatedBlocks(*blocks)
        super().__init__(stages, {}, num_bands=num_bands, patch_size=patch_size)
        self.head = make_head(num_in, num_classes, dropout=settings.dropout)

    @staticmethod
    def make_branch(settings: Any, num_in: int, width: int, *, strides: Strides) -> tuple[nn.Module, str]:
        """Returns the branch of one block and a description; `width` is that of its 3 × 3 convolutions."""
        if settings.depth < 50:
            convs = make_conv2d(num_in, width, 3, stride=strides[0]), make_conv2d(width, width, 3, relu=False)
            return nn.Sequential(*convs), f"basic block {width}"
        reduce = make_conv2d(num_in, width, 1, stride=strides[0])
        expand = make_conv2d(width, EXPANSION * width, 1, relu=False)
        return nn.Sequential(reduce, make_conv2d(width, width, 3, stride=strides[1]), expand), f"bottleneck {width}"


class _RepeatedBlocks(nn.Sequential):
    def extra_repr(self) -> str:
        return f"{len(self)} × {self[0].extra_repr()}"


class Hierarchy(nn.Module):
    """The branch of a Res2Net block: 1 × 1, a hierarchy of 3 × 3 over s groups, 1 × 1 (eq. 1).

    Every group but the last is convolved; from the second on, the previous group's output is added first. In
    the first block of a stage the groups are convolved independently, and the last group is average-pooled,
    as in the authors' code.

    Shape: `(n, num_in, h, w)` to `(n, 4·width, h / stride, w / stride)`.
    """

    def __init__(self, num_in: int, width: int, *, group_width: int, scale: int, strides: Strides) -> None:
        super().__init__()
        num_out = EXPANSION * width
        self.is_first = num_in != num_out  # of its stage: the number of features changes
        first, stride = strides
        self.reduce = make_conv2d(num_in, scale * group_width, 1, stride=first)
        self.convs = nn.ModuleList(make_conv2d(group_width, group_width, 3, stride=stride) for _ in range(scale - 1))
        self.rest = nn.AvgPool2d(3, stride=stride, padding=1) if self.is_first else nn.Identity()
        self.expand = make_conv2d(scale * group_width, num_out, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = self.reduce(x).chunk(len(self.convs) + 1, dim=1)  # s × (n, c/s, h, w)
        found: list[Tensor] = []
        for group, conv in zip(groups, self.convs, strict=True):
            is_joined = found and not self.is_first
            found.append(conv(group + found[-1] if is_joined else group))
        joined = torch.cat([*found, self.rest(last)], dim=1)  # (n, c, h/stride, w/stride)
        expanded: Tensor = self.expand(joined)
        return expanded


@register_network("res2net", settings=config.Res2Net)
class Res2Net(SeResNet):
    """Res2Net of depth 50, 101 or 152, with attention on the branch, before the addition."""

    @staticmethod
    def make_branch(settings: config.Res2Net, num_in: int, width: int, *, strides: Strides) -> tuple[nn.Module, str]:
        group_width = width * settings.base_width // 64
        branch = Hierarchy(num_in, width, group_width=group_width, scale=settings.scale, strides=strides)
        return branch, f"Res2Net block {settings.scale} × {group_width}"
