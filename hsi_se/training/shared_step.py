"""The forward pass of a batch of overlapping patches, in which what they share is computed once.

Convolutions are valid ones, so the features of a patch are a window of the features of the area that
the batch covers. They are computed over that area up to the first point where patches differ: a block in
a slot, or the head. Batch norm counts each location as often as patches cover it, and the gradients
of a location sum over them: outputs, gradients and running statistics are those of the patches one
by one, to rounding.

Axes: h, w locations of the area; n patches; c features, d spectral depth; C = c·d channels.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from hsi_se.attention.channel_gate import ChannelGate
from hsi_se.models.cnn3d import Cnn3d
from hsi_se.models.hybridsn import HybridSN
from hsi_se.models.network import Network
from hsi_se.training.weighted_norm import normalize
from hsi_se.training.windows import Corners, average_windows, count_coverage, gather_windows

CUT = "cutting patches"
Watch = Callable[[str, Tensor], None]  # is told the name of a stage, slot or head, and what it gives


def can_share(model: nn.Module) -> bool:
    """Whether every stage before the head is a valid convolution or moves depth into features."""
    return isinstance(model, HybridSN | Cnn3d)


def list_shared_points(model: Network) -> list[str]:
    """Returns the stages up to the first with a block behind it, where patches go their own ways."""
    points = list(model.stages)
    blocks = [not isinstance(model.attention[point], nn.Identity) for point in points]
    return points[: blocks.index(True) + 1] if True in blocks else points


def share_forward(model: Network, area: Tensor, corners: Corners, *, watch: Watch | None = None) -> Tensor:
    """Returns the logits `(n, classes)` of patches of an area, as `model` in training mode gives them.

    Args:
        model: one that `can_share`.
        area: `(h, w, k)` components; every location between the patches has to be finite.
        corners: of the n patches in the area.
        watch: called behind every stage, every block, and where patches are cut.
    """
    watch = watch or (lambda *_: None)
    x = area.permute(2, 0, 1)[None, None]  # (1, 1, k, h, w)
    shared = list_shared_points(model)
    for point in shared:
        x = _run_stage(model.stages[point], x, corners, reach=area.shape[0] - model.patch_size)
        watch(point, x)
    block = model.attention[shared[-1]]
    size = x.shape[-1] - (area.shape[1] - model.patch_size)
    x = _cut_patches(block, x, corners, size=size)
    watch(CUT if isinstance(block, nn.Identity) else f"attention.{shared[-1]}", x)
    return finish_forward(model, x, list(model.stages)[len(shared) :], watch=watch)


def finish_forward(model: Network, x: Tensor, points: Iterable[str], *, watch: Watch) -> Tensor:
    """Returns the logits of patches from the features in front of the last stages, those of `points`."""
    for point in points:
        x = model.stages[point](x)
        watch(point, x)
        if not isinstance(model.attention[point], nn.Identity):
            x = model.attention[point](x)
            watch(f"attention.{point}", x)
    x = model.classify(x)
    watch("head", x)
    return x


def _run_stage(stage: nn.Module, x: Tensor, corners: Corners, *, reach: int) -> Tensor:
    """From `(1, …, h, w)` to the stage's features; a patch covers `h - reach` rows and as many cols."""
    if isinstance(stage, nn.Flatten):
        return cast(Tensor, stage(x))
    is_rectified = False
    for module in stage.children():
        match module:
            case nn.Conv2d() | nn.Conv3d():
                x = _convolve(module, x)
            case _BatchNorm():
                h, w = x.shape[-2:]
                counts = count_coverage(corners, shape=(h, w), size=h - reach, like=x)
                by_location = x.movedim(1, -1)  # (1, d, h, w, c) or (1, h, w, c)
                flat = by_location.reshape(-1, h * w, x.shape[1])
                x = normalize(flat, module, counts=counts.flatten()).view(by_location.shape).movedim(-1, 1)
                is_rectified = True
            case nn.ReLU() if is_rectified:
                pass
            case _:
                x = module(x)
    return x


def _convolve(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """As the layer does it; from one feature, depths run as a batch: 3-D ones are slow with few channels."""
    if x.ndim == 4 or x.shape[1] > 1:
        return cast(Tensor, conv(x))
    depth = conv.kernel_size[0]
    left = x.shape[2] - depth + 1
    slabs = torch.stack([x[0, 0, tap : tap + left] for tap in range(depth)], -1).movedim(-1, 1)
    y = F.conv2d(slabs, conv.weight.squeeze(1), conv.bias)  # (d, c, h, w)
    return y.transpose(0, 1)[None]  # (1, c, d, h, w)


def _cut_patches(block: nn.Module, x: Tensor, corners: Corners, *, size: int) -> Tensor:
    """Returns the features `(n, …, s, s)` of the patches behind their block, from `(1, …, h, w)`."""
    shape = x.shape[1:-2]  # (C,) or (c, d)
    features = x[0].movedim((-2, -1), (0, 1)).flatten(2).contiguous()  # (h, w, C)
    gates = None
    if isinstance(block, ChannelGate) and block.squeeze == "mean":
        means = average_windows(features, corners, size=size).view(-1, *shape, 1, 1)
        gates = block.excitation(means)  # (n, the gated axis)
        if len(shape) == 2:
            gates = gates.unsqueeze(3 - block.gated_dim).expand(means.shape[:3]).flatten(1)  # (n, C)
        block = nn.Identity()  # has acted
    patches = gather_windows(features, corners, size=size, gates=gates)  # (n, s, s, C)
    return cast(Tensor, block(patches.view(*patches.shape[:3], *shape).movedim((1, 2), (-2, -1))))
