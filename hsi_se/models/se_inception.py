"""GoogLeNet with batch norm and an attention point after each Inception module.

Szegedy et al.: Going Deeper with Convolutions, https://arxiv.org/abs/1409.4842 (table 1), with the
batch norm of Ioffe and Szegedy, https://arxiv.org/abs/1502.03167; attention after each module as in
Hu et al., https://arxiv.org/abs/1709.01507 (figure 2).
Axes: n images, c channels, h rows, w cols.
"""

import torch
from torch import Tensor, nn

from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.network import Network, make_conv2d, make_head, make_stem

# Features per branch: 1×1; 1×1 then 3×3; 1×1 then 5×5; 1×1 after the pool.
_WIDTHS = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
_POOLED_BEFORE = ("inception_4a", "inception_5a")


class Inception(nn.Module):
    """Four parallel branches: 1 × 1, 3 × 3, 5 × 5 and max-pool, with 1 × 1 convolutions (figure 2b).

    Shape: `(n, num_in, h, w)` to `(n, num_out, h, w)`.
    """

    def __init__(self, num_in: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = widths
        pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.branches = nn.ModuleList([make_conv2d(num_in, one, 1)])
        self.branches.append(nn.Sequential(make_conv2d(num_in, reduce3, 1), make_conv2d(reduce3, three, 3)))
        self.branches.append(nn.Sequential(make_conv2d(num_in, reduce5, 1), make_conv2d(reduce5, five, 5)))
        self.branches.append(nn.Sequential(pool, make_conv2d(num_in, pooled, 1)))
        self.num_out = one + three + five + pooled

    def extra_repr(self) -> str:
        return f"Inception module, {self.num_out} features"

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)  # (n, num_out, h, w)


@register_network("se_inception", settings=config.SeInception)
class SeInception(Network):
    """GoogLeNet's nine modules with batch norm, without auxiliary classifiers; a slot after each.

    The `imagenet` stem is the paper's and divides the input's sides by 8; `small` is one 3 × 3 convolution.

    Shape: `(n, 1, k, p, p)` or images `(n, k, h, w)` to `(n, C)`.
    """

    def __init__(self, settings: config.SeInception, *, num_bands: int, patch_size: int, num_classes: int) -> None:
        channels = 192
        if settings.stem == "small":
            stem = make_stem(num_bands, channels, kind="small")
        else:
            stem = make_stem(num_bands, 64, kind="imagenet")
            pool = nn.MaxPool2d(3, stride=2, padding=1)
            stem.extend([make_conv2d(64, 64, 1), make_conv2d(64, channels, 3), pool])
        stages: dict[str, nn.Module] = {"stem": stem}
        for point, widths in _WIDTHS.items():
            module = Inception(channels, widths)
            pool = nn.MaxPool2d(3, stride=2, padding=1)
            stages[point] = nn.Sequential(pool, module) if point in _POOLED_BEFORE else module
            channels = module.num_out
        super().__init__(stages, settings.attention, num_bands=num_bands, patch_size=patch_size)
        self.head = make_head(channels, num_classes, dropout=settings.dropout)
