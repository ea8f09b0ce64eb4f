"""From a config's block to the module that fits its point."""

from torch import nn

from hsi_se import config_model as config
from hsi_se.attention.cbam import Cbam
from hsi_se.attention.coordinate import Coordinate
from hsi_se.attention.eca import EfficientChannel
from hsi_se.attention.gather_excite import GatherExcite
from hsi_se.attention.nonlocal_block import NonLocal
from hsi_se.attention.simam import SimAm
from hsi_se.attention.squeeze_excite import SqueezeExcite
from hsi_se.attention.strip_pooling import StripPooling


def build_attention(settings: config.AttentionSettings, *, shape: tuple[int, ...]) -> nn.Module:
    """Returns the block for a point whose features have `shape`: (c, d, h, w) or (c, h, w).

    The config has already proved that the block is legal at the point.
    """
    channels, is_3d = shape[0], len(shape) == 4
    match settings:
        case config.SqueezeExcite():
            return SqueezeExcite(
                channels if settings.axis == "feature" else shape[1],
                reduction=settings.reduction,
                bias=settings.bias,
                form=settings.form,
                squeeze=settings.squeeze,
                axis=settings.axis,
            )
        case config.EfficientChannel():
            return EfficientChannel(
                channels if settings.axis == "feature" else shape[1],
                kernel_size=settings.kernel_size,
                axis=settings.axis,
            )
        case config.Cbam():
            default = 0 if is_3d else 7
            return Cbam(
                channels,
                reduction=settings.reduction,
                bias=settings.bias,
                spatial_kernel=default if settings.spatial_kernel is None else settings.spatial_kernel,
            )
        case config.NonLocal():
            return NonLocal(
                channels, is_3d=is_3d, reduction=settings.reduction, sub_sample=settings.sub_sample
            )
        case config.StripPooling():
            return StripPooling(channels, kernel_size=settings.kernel_size)
        case config.Coordinate():
            return Coordinate(channels, reduction=settings.reduction)
        case config.GatherExcite():
            return GatherExcite(extent=settings.extent)
        case config.SimAm():
            return SimAm(regularization=settings.regularization)
