"""Cuts patches from shared features, with gradients that add up where patches overlap.

Axes: h, w rows and cols of the shared features, C channels (last axis); n patches of s × s locations.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

Corners = list[tuple[int, int]]  # upper-left (row, col) of each patch


def gather_windows(features: Tensor, corners: Corners, *, size: int, gates: Tensor | None = None) -> Tensor:
    """Returns the patches `(n, s, s, C)` of features `(h, w, C)`.

    The `gates` `(n, C)`, if any, scale the channels of each patch. In the backward pass, the gradient of a
    location is the sum over the patches that cover it.
    """
    if features.device.type != "cpu" and gates is None:  # a single kernel launch instead of one per patch
        return index_windows(features, corners, size=size)
    return cast(Tensor, _GatherWindows.apply(features, corners, size, gates))  # type: ignore[no-untyped-call]


def index_windows(features: Tensor, corners: Corners, *, size: int) -> Tensor:
    """Returns the same as `gather_windows` without gates, by one gather of all patches' locations."""
    rows, cols = torch.tensor(corners).T
    steps = torch.arange(size)
    rows, cols = rows[:, None] + steps, cols[:, None] + steps  # (n, s)
    locations = rows[:, :, None] * features.shape[1] + cols[:, None]  # (n, s, s)
    flat = features.flatten(0, 1).index_select(0, locations.flatten().to(features.device))  # (n·s², C)
    return flat.view(len(corners), size, size, -1)


def average_windows(features: Tensor, corners: Corners, *, size: int) -> Tensor:
    """Returns the mean of each channel over each patch `(n, C)`, without copying the patches."""
    return cast(Tensor, _AverageWindows.apply(features, corners, size))  # type: ignore[no-untyped-call]


def count_coverage(corners: Corners, *, shape: tuple[int, int], size: int, like: Tensor) -> Tensor:
    """Returns the number of patches that cover each location.

    A patch adds ±1 at its four corners; cumulative sums along both axes turn this into its square of ones.
    The result `shape` is on the device of `like`, in the type in which values like it are summed.
    """
    rows, cols = torch.tensor(corners).T
    steps = torch.zeros(shape[0] + 1, shape[1] + 1, dtype=torch.int64)
    for row, col, sign in ((0, 0, 1), (size, 0, -1), (0, size, -1), (size, size, 1)):
        steps.index_put_((rows + row, cols + col), torch.tensor(sign), accumulate=True)
    return steps.cumsum(0).cumsum(1)[:-1, :-1].to(like.device, _sum_type(like))


def _sum_type(x: Tensor) -> torch.dtype:
    """Returns the type in which values like `x` are summed: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def _windows(features: Tensor, corners: Corners, size: int) -> list[Tensor]:
    """Returns a view `(s, s, C)` of the features for each patch."""
    return [features[row : row + size, col : col + size] for row, col in corners]


class _GatherWindows(Function):
    """Forward: patches[i] = gates[i] · windows[i].

    Backward: each window of the features' gradient gets += gates[i] · grad[i], and the gradient of
    gates[i] is the sum of grad[i] · windows[i] over its s × s locations.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, corners: Corners, size: int, gates: Tensor | None) -> Tensor:
        patches = features.new_empty(len(corners), size, size, features.shape[2])
        if gates is not None:
            gates = gates.to(features.dtype)
        for i, window in enumerate(_windows(features, corners, size)):
            if gates is None:
                patches[i] = window
            else:
                torch.mul(window, gates[i], out=patches[i])
        ctx.save_for_backward(features, gates)
        ctx.corners, ctx.size = corners, size
        return patches

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
        features, gates = ctx.saved_tensors
        of_patches = grads[0].contiguous()
        of_features = torch.zeros_like(features, dtype=_sum_type(features))
        targets = _windows(of_features, ctx.corners, ctx.size)
        if gates is None:
            for target, grad in zip(targets, of_patches, strict=True):
                target += grad
            return of_features.to(features.dtype), None, None, None
        of_gates = torch.empty_like(gates, dtype=_sum_type(gates))
        windows = _windows(features, ctx.corners, ctx.size)
        for i, (target, window, grad) in enumerate(zip(targets, windows, of_patches, strict=True)):
            target.addcmul_(grad, gates[i])
            torch.sum(grad * window, (0, 1), dtype=of_gates.dtype, out=of_gates[i])
        return of_features.to(features.dtype), None, None, of_gates.to(gates.dtype)


class _AverageWindows(Function):
    """Forward: means[i] is the mean of windows[i]. Backward: its window gets += grad[i] / s²."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, corners: Corners, size: int) -> Tensor:
        means = features.new_empty(len(corners), features.shape[2], dtype=_sum_type(features))
        for mean, window in zip(means, _windows(features, corners, size), strict=True):
            torch.mean(window, (0, 1), dtype=means.dtype, out=mean)
        ctx.corners, ctx.size, ctx.shape, ctx.dtype = corners, size, features.shape, features.dtype
        return means.to(features.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        shares = grads[0] / ctx.size**2
        of_features = torch.zeros(ctx.shape, dtype=_sum_type(shares), device=shares.device)
        for target, share in zip(_windows(of_features, ctx.corners, ctx.size), shares, strict=True):
            target += share
        return of_features.to(ctx.dtype), None, None
