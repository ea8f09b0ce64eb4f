"""Operations on features that overlapping patches share: batch norm, window means and cutting patches.

Patches that overlap contain the same location several times. With n_l the number of patches that cover
location l, and N = d · Σ_l n_l, the statistics of the batch of patches are, for each feature,

    μ = Σ_{d,l} n_l x / N        σ² = Σ_{d,l} n_l (x - μ)² / N        y = γ (x - μ) / √(σ² + ε) + β

Gradients of a location are summed over the patches that cover it.

Axes: d spectral depth, c features; h, w rows and cols of the shared features, C channels (last axis); n patches of
s × s locations.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

Corners = list[tuple[int, int]]  # upper-left (row, col) of each patch


def normalize(
    x: Tensor, norm: _BatchNorm, *, counts: Tensor, total: float, add: Callable[[Tensor], Tensor] = lambda part: part
) -> Tensor:
    """Returns `norm(x)` `(n, c, …, h, w)` as if each location occurred `counts` `(h, w)` times in the batch.

    The norm is in training mode. Its running statistics are updated as for that batch, with its unbiased variance.
    A location with count 0 has no effect on the statistics, and its gradient is 0 because no patch reads its output.
    The mean is summed before the variance. One pass with E[x²] - E[x]² would lose digits by cancellation.

    Args:
        counts: of at least float32, the type in which values are summed.
        total: values per feature in the whole batch, each as often as it counts.
        add: sums a tensor over the processes that share the batch.
    """
    others, along_channels = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
    with torch.autocast(x.device.type, enabled=False):  # the sums stay float32
        values = x.to(counts.dtype)
        mean = add((values * counts).sum(others)) / total  # (c,)
        centred = values - mean.view(along_channels)
        variance = add((centred.square() * counts).sum(others)) / total
        scale = norm.weight * (variance + norm.eps).rsqrt()
        y = torch.addcmul(norm.bias.view(along_channels), centred, scale.view(along_channels))
    running: Any = norm  # it has statistics and a momentum
    with torch.no_grad():
        running.running_mean.lerp_(mean, running.momentum)
        running.running_var.lerp_(variance * (total / (total - 1)), running.momentum)
        running.num_batches_tracked += 1
    return y.to(x.dtype)


def gather_windows(features: Tensor, corners: Corners, *, size: int) -> Tensor:
    """Returns the patches `(n, s, s, C)` of features `(h, w, C)`."""
    flat = features.flatten(0, 1).to(sum_type(features))
    patches = F.embedding(_locate(corners, width=features.shape[1], size=size).to(flat.device), flat)  # (n, s², C)
    return patches.to(features.dtype).view(-1, size, size, features.shape[2])


def average_windows(features: Tensor, corners: Corners, *, size: int) -> Tensor:
    """Returns the mean of each channel over each patch `(n, C)`, without copying the patches."""
    flat = features.flatten(0, 1).to(sum_type(features))
    means = F.embedding_bag(_locate(corners, width=features.shape[1], size=size), flat, mode="mean")
    return means.to(features.dtype)


def count_coverage(corners: Corners, *, shape: tuple[int, int], size: int, like: Tensor) -> Tensor:
    """Returns the number of patches that cover each location.

    The result `shape` is on the device of `like`, in the type in which values like it are summed.
    """
    counts = torch.bincount(_locate(corners, width=shape[1], size=size).flatten(), minlength=math.prod(shape))
    return counts.view(shape).to(like.device, sum_type(like))


def _locate(corners: Corners, *, width: int, size: int) -> Tensor:
    """Returns the positions `(n, s²)` of the patches' locations in row-major order, with `width` cols in a row."""
    steps = torch.arange(size)
    first = torch.tensor([row * width + col for row, col in corners])[:, None, None]
    return (first + width * steps[:, None] + steps).flatten(1)


def sum_type(x: Tensor) -> torch.dtype:
    """Returns the type in which values like `x` are summed: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)
