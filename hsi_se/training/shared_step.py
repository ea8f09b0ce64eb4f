"""Runs the forward pass of overlapping patches with their common features computed only once.

All convolutions are valid, that is without padding. The features f of a patch with corner (r, q) are
therefore a window of the features of the area that the batch covers:

    f(area[r : r+p, q : q+p]) = f(area)[r : r+s, q : q+s]

p is the patch size and s the size of the feature map of one patch. The pass has three parts:

1. All stages up to the first attention block, or up to the head, run once over the area.
2. The windows of the n patches are cut from the result, and the attention block is applied to them.
3. The remaining stages and the head run on the patches.

Batch norm weights each location by the number of patches that cover it. In the backward pass the gradient
of a location is the sum over these patches. Logits, gradients and running statistics therefore equal
those of the patches computed one by one, up to rounding.

Axes: h, w rows and cols of the area, or of its features; n patches; s rows and cols of a patch's features;
k components; c features, d spectral depth, C = c·d channels.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hsi_se.attention.channel_gate import ChannelGate
from hsi_se.models.cnn3d import Cnn3d
from hsi_se.models.hybridsn import HybridSN
from hsi_se.models.network import Network
from hsi_se.training.overlap import Corners, average_windows, count_coverage, gather_windows, normalize


def can_share(model: nn.Module) -> bool:
    """Returns whether all stages before the head are valid convolutions or fold depth into features."""
    return isinstance(model, HybridSN | Cnn3d)


def share_forward(model: Network, area: Tensor, corners: Corners) -> Tensor:
    """Returns the logits `(n, classes)` of the patches of an area, equal to those of `model` on each patch.

    Args:
        model: a network in training mode for which `can_share` is true.
        area: `(h, w, k)` components. Locations that no patch covers must be finite too.
        corners: upper-left (row, col) in the area of each of the n patches.
    """
    x = area.permute(2, 0, 1)[None, None]  # (1, 1, k, h, w)
    shared = model.early_points
    for point in shared:
        x = _run_stage(model.stages[point], x, corners, extra_rows=area.shape[0] - model.patch_size)
    size = x.shape[-1] - (area.shape[1] - model.patch_size)
    x = _cut_patches(model.attention[shared[-1]], x, corners, size=size)
    for point in list(model.stages)[len(shared) :]:
        x = model.attention[point](model.stages[point](x))
    return model.classify(x)


def _run_stage(stage: nn.Module, x: Tensor, corners: Corners, *, extra_rows: int) -> Tensor:
    """Runs a stage on the features `(1, …, h, w)` of the area.

    Valid convolutions shrink the area and a patch by the same number of rows. A patch's features thus
    always have `h - extra_rows` rows, and as many cols.
    """
    for module in [*stage.children()] or [stage]:
        if isinstance(module, _BatchNorm):
            h, w = x.shape[-2:]
            counts = count_coverage(corners, shape=(h, w), size=h - extra_rows, like=x)
            x = normalize(x, module, counts=counts, total=float(counts.sum()) * x[0, 0].numel() / counts.numel())
        else:
            x = module(x)
    return x


def _cut_patches(block: nn.Module, x: Tensor, corners: Corners, *, size: int) -> Tensor:
    """Cuts patches `(n, …, s, s)` from features `(1, …, h, w)` and applies their attention block.

    The gates of a channel gate that squeezes by the mean are computed before the patches are cut, since they depend
    only on the channels' means over each window.
    """
    shape = x.shape[1:-2]  # (C,) or (c, d)
    features = x[0].movedim((-2, -1), (0, 1)).flatten(2)  # (h, w, C)
    patches = gather_windows(features, corners, size=size)  # (n, s, s, C)
    if isinstance(block, ChannelGate) and block.squeeze == "mean":
        means = average_windows(features, corners, size=size).view(-1, *shape, 1, 1)
        gates = block.excitation(means)  # (n, the gated axis)
        if len(shape) == 2:
            gates = gates.unsqueeze(3 - block.gated_dim).expand(means.shape[:3]).flatten(1)  # (n, C)
        patches, block = patches * gates[:, None, None].to(patches.dtype), nn.Identity()
    return cast(Tensor, block(patches.view(*patches.shape[:3], *shape).movedim((1, 2), (-2, -1))))
