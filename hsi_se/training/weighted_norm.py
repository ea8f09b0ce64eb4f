"""Batch normalisation and ReLU that weight each location by the number of patches that contain it.

Patches that overlap contain the same location several times. With n_l the number of patches that cover
location l, and N = d · Σ_l n_l, the statistics of the batch of patches are, for each feature,

    μ = Σ_{d,l} n_l x / N        σ² = Σ_{d,l} n_l (x - μ)² / N        y = relu(γ (x - μ) / √(σ² + ε) + β)

Axes: d spectral depth, l locations, c features.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm


def normalize(x: Tensor, norm: _BatchNorm, *, counts: Tensor) -> Tensor:
    """Returns `relu(norm(x))` `(d, l, c)` as if location l occurred `counts[l]` times in the batch.

    The running statistics are updated as for that batch, with its unbiased variance.

    Args:
        x: `(d, l, c)`, contiguous.
        norm: a batch norm in training mode, with weights and running statistics.
        counts: `(l,)` number of patches that cover each location. A location with count 0 has no effect on
            the statistics, and its gradient is 0 because no patch reads its output.
    """
    total = len(x) * float(counts.sum())
    with torch.autocast(x.device.type, enabled=False):  # the sums stay float32
        y, mean, variance = _WeightedNorm.apply(  # type: ignore[no-untyped-call]
            x, counts[:, None], norm.weight, norm.bias, norm.eps, total
        )
    move_statistics(norm, mean, variance * (total / (total - 1)))
    return cast(Tensor, y)


@torch.no_grad()
def move_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Moves a norm's running statistics towards those of a batch."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance, norm.momentum)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1


class _WeightedNorm(Function):
    """The normalisation and its gradient.

    Both loop over slabs of one depth, so that a slab stays in the cache from one operation to the next.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, counts: Tensor, weight: Tensor, bias: Tensor, eps: float, total: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        shares = (counts / total).T  # (1, l)
        mean = cast(Tensor, sum(shares @ slab.to(counts.dtype) for slab in x))  # (1, c)
        variance = cast(Tensor, sum(shares @ (slab - mean).square_() for slab in x))
        scale = (variance + eps).rsqrt_()
        gain = scale * weight
        offset = bias - mean * gain
        y = torch.empty_like(x)
        for slab, out in zip(x, y, strict=True):
            out.copy_(torch.addcmul(offset, slab.to(counts.dtype), gain).relu_())
        ctx.save_for_backward(x, y, counts, mean, scale, gain)
        ctx.total = total
        mean, variance = mean[0], variance[0]
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y, counts, mean, scale, gain = ctx.saved_tensors
        grad = torch.empty_like(x)  # first the gradient g before the ReLU, then that of x
        of_bias, of_centred = torch.zeros_like(mean), torch.zeros_like(mean)
        for slab, above, out, given in zip(x, y, grad, grads[0], strict=True):
            torch.ops.aten.threshold_backward.grad_input(given, above, 0, grad_input=out)
            of_bias += out.sum(0, dtype=mean.dtype)
            of_centred += ((slab - mean) * out).sum(0)
        # With x̂ = scale · (x - mean):  dx = gain · (g - counts / total · (Σ g + x̂ Σ g x̂)).
        # The terms without g are linear in x: counts · (level + slope · x).
        slope = gain * scale**2 * of_centred / ctx.total
        level = gain * of_bias / ctx.total - slope * mean
        for slab, out in zip(x, grad, strict=True):
            line = torch.addcmul(level, slab.to(mean.dtype), slope).mul_(counts)
            out.copy_((out * gain).sub_(line))
        return grad, None, (of_centred * scale)[0], of_bias[0], None, None
