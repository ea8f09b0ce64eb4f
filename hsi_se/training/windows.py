"""Patches cut from features that they share, and the way back for the gradients.

Axes: h, w locations of the shared features, C channels behind them; n patches of s × s locations.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

Corners = list[tuple[int, int]]  # upper left (row, col) of each patch


def gather_windows(features: Tensor, corners: Corners, *, size: int, gates: Tensor | None = None) -> Tensor:
    """Returns the patches `(n, s, s, C)` of features `(h, w, C)`, each channel times its gate `(n, C)`.

    Backwards, a location gets the sum over the patches that cover it.
    """
    if features.device.type != "cpu" and gates is None:  # one launch, where a copy of each would be many
        return index_windows(features, corners, size=size)
    return cast(Tensor, _GatherWindows.apply(features, corners, size, gates))  # type: ignore[no-untyped-call]


def index_windows(features: Tensor, corners: Corners, *, size: int) -> Tensor:
    """As `gather_windows` without gates, by an index for each location of each patch."""
    rows, cols = torch.tensor(corners).T
    steps = torch.arange(size)
    rows, cols = rows[:, None] + steps, cols[:, None] + steps  # (n, s)
    places = rows[:, :, None] * features.shape[1] + cols[:, None]  # (n, s, s)
    flat = features.flatten(0, 1).index_select(0, places.flatten().to(features.device))
    return flat.view(len(corners), size, size, -1)


def average_windows(features: Tensor, corners: Corners, *, size: int) -> Tensor:
    """Returns the mean of each channel over each patch, `(n, C)`, without cutting the patches."""
    return cast(Tensor, _AverageWindows.apply(features, corners, size))  # type: ignore[no-untyped-call]


def count_coverage(corners: Corners, *, shape: tuple[int, int], size: int, like: Tensor) -> Tensor:
    """Returns how many patches of `size` × `size` cover each location, `shape`, on `like`'s device."""
    rows, cols = torch.tensor(corners).T
    steps = torch.zeros(shape[0] + 1, shape[1] + 1, dtype=torch.int64)  # of the count along both axes
    for row, col, sign in ((0, 0, 1), (size, 0, -1), (0, size, -1), (size, size, 1)):
        steps.index_put_((rows + row, cols + col), torch.tensor(sign), accumulate=True)
    return steps.cumsum(0).cumsum(1)[:-1, :-1].to(like.device, _sum_type(like))


def _sum_type(x: Tensor) -> torch.dtype:
    """Half-precision values are summed in float32."""
    return torch.promote_types(x.dtype, torch.float32)


def _windows(features: Tensor, corners: Corners, size: int) -> list[Tensor]:
    return [features[row : row + size, col : col + size] for row, col in corners]


class _GatherWindows(Function):
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
