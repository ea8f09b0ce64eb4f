"""Computes features and gates of all patches, by convolutions over the scene and sliding statistics.

Axes: d spectral depth, c features; h rows and w cols of the padded scene, or of its features after valid
convolutions; rows and cols of patches, one per pixel; o output features.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hsi_se.attention.channel_gate import ChannelGate
from hsi_se.models.hybridsn import HybridSN


@dataclass(frozen=True)
class SharedStage:
    """A convolution of HybridSN followed by ReLU, with its batch norm folded into the weights.

    A 3-D convolution runs as a 2-D one. The output's depths become the batch, and the kernel's depths
    become input channels. For a whole scene, torch's own 3-D convolution takes up to six times as long.
    """

    weight: Tensor  # (o, depth·c, 3, 3)
    bias: Tensor  # (o,)
    num_features: int  # c; for a 2-D convolution all depths count as features

    def __call__(self, x: Tensor) -> Tensor:
        """Maps features `(d, c, h, w)` to `(d - depth + 1, o, h - 2, w - 2)`."""
        h, w = x.shape[2:]
        x = x.reshape(-1, self.num_features, h, w).contiguous()
        taps = self.weight.shape[1]
        depth = taps // self.num_features
        slabs = x.as_strided((len(x) - depth + 1, taps, h, w), (x.stride(0), h * w, w, 1))
        return F.conv2d(slabs, self.weight, self.bias).relu_()


def fold_stages(model: HybridSN) -> dict[str, SharedStage]:
    """Returns the convolutions of a network by stage name, with its running batch-norm statistics folded in.

    With scale s = γ / √(σ² + ε), the folded weight is s · W and the folded bias is s · (b - μ) + β.
    """
    folded = {}
    num_features, num_depths = 1, model.num_bands
    for point, stage in model.stages.items():
        modules = dict(stage.named_children())
        conv = modules.get("conv")
        if not isinstance(conv, nn.Conv2d | nn.Conv3d):  # `fold`
            continue
        if isinstance(norm := modules["norm"], nn.BatchNorm2d | nn.BatchNorm3d):
            conv = fuse_conv_bn_eval(conv, norm)
        weight, bias = conv.weight, conv.bias
        assert bias is not None
        if isinstance(conv, nn.Conv2d):
            weight = weight.view(-1, num_features, num_depths, 3, 3)
            inputs = num_features * num_depths
            num_features, num_depths = 1, conv.out_channels  # a 3-D stage after it sees features as depths
        else:
            inputs = conv.in_channels
            num_features, num_depths = conv.out_channels, num_depths - conv.kernel_size[0] + 1
        weight = weight.transpose(1, 2).flatten(1, 2).contiguous()  # (o, depth·c, 3, 3)
        folded[point] = SharedStage(weight, bias.clone(), inputs)
    return folded


def gate_windows(
    block: ChannelGate, features: Tensor, *, window: int, is_flat: bool, earlier: Tensor | None = None
) -> Tensor:
    """Returns the gates of every patch of shared features.

    A gate sees only one squeezed number per channel, the mean or maximum over the patch. For all patches this is a
    sliding statistic of the shared features. Earlier gates scale it in the same way as they scale the features.

    Args:
        features: `(d, c, h, w)`; must be non-negative if the gate squeezes by the maximum and `earlier` is given.
        window: rows and cols of a patch at the gate's position in the network.
        is_flat: whether the gate sees depths and features as one axis of c·d channels.
        earlier: `(rows, cols, d or 1, c or 1)` gates that have already scaled each patch's features.

    Returns:
        `(rows, cols, d or 1, c or 1)`, with size 1 for an axis along which all channels share a gate.
    """
    channels = features
    if not is_flat:
        dim = 0 if block.gated_dim == 1 else 1
        reduce = torch.mean if block.squeeze == "mean" else torch.amax
        channels = reduce(features, dim, keepdim=True)
    squeezed = slide(channels.flatten(0, 1), window=window, statistic=block.squeeze)  # (d·c, rows, cols)
    squeezed = squeezed.view(*channels.shape[:2], *squeezed.shape[1:])  # (d, c, rows, cols)
    squeezed = squeezed.permute(2, 3, 1, 0)  # (rows, cols, c, d)
    if earlier is not None:
        squeezed = squeezed * earlier.transpose(2, 3)
    gates = block.gate(squeezed.flatten(0, 1).flatten(1))  # (rows·cols, c·d)
    return gates.view(squeezed.shape).transpose(2, 3)


def slide(channels: Tensor, *, window: int, statistic: Literal["mean", "max"]) -> Tensor:
    """Returns the mean or maximum `(C, rows, cols)` of channels `(C, h, w)` over every window.

    The mean is a product with two band matrices, whose row i averages i to i + window - 1. This is cheap, and
    unlike a difference of cumulative sums it does not lose digits by cancellation.
    """
    if window == 1:
        return channels
    if statistic == "max":
        return F.max_pool2d(F.max_pool2d(channels, (1, window), stride=1), (window, 1), stride=1)
    ones = [channels.new_ones(length - window + 1, length) for length in channels.shape[1:]]
    over_rows, over_cols = (each.triu().tril(window - 1) / window for each in ones)
    return over_rows @ (channels @ over_cols.T)
