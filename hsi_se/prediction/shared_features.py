"""Computes features and gates of all patches, by convolutions over the scene and sliding statistics.

Axes: d spectral depth, c features; h rows and w cols of the padded scene, or of its features after valid
convolutions; rows and cols of patches, one per pixel; o output features.
"""

from collections import OrderedDict
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hsi_se.attention.channel_gate import ChannelGate


def fold_norm(stage: nn.Module) -> nn.Module:
    """Returns a stage of HybridSN whose batch norm, if any, is folded into the weights of its convolution.

    The statistics are the running ones: with scale s = γ / √(σ² + ε), the weight is s · W and the bias s · (b - μ) + β.
    """
    layers = dict(stage.named_children())
    if isinstance(norm := layers.get("norm"), nn.BatchNorm2d | nn.BatchNorm3d):
        layers["conv"] = fuse_conv_bn_eval(cast(nn.Conv2d, layers["conv"]), norm)
        layers.pop("norm")
    return nn.Sequential(OrderedDict(layers)) if layers else stage


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
