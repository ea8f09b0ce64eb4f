"""Builds attention modules from the config's block settings."""

from torch import nn

from hsi_se.attention.cbam import Cbam
from hsi_se.attention.coordinate import Coordinate
from hsi_se.attention.eca import EfficientChannel
from hsi_se.attention.gather_excite import GatherExcite
from hsi_se.attention.nonlocal_block import NonLocal
from hsi_se.attention.simam import SimAm
from hsi_se.attention.squeeze_excite import SqueezeExcite
from hsi_se.attention.strip_pooling import StripPooling
from hsi_se.config import model as config


def build_attention(settings: config.AttentionSettings | None, *, shape: tuple[int, ...]) -> nn.Module:
    """Returns the attention module of a point, or `nn.Identity()` without settings.

    `shape` is that of the point's features without the batch, `(c, d, h, w)` or `(c, h, w)`. The config has
    already checked that the block fits them.
    """
    if settings is None:
        return nn.Identity()
    channels, is_3d = shape[0], len(shape) == 4
    options = settings.model_dump(exclude={"kind"})
    match settings:
        case config.SqueezeExcite():
            return SqueezeExcite(channels if settings.axis == "feature" else shape[1], **options)
        case config.EfficientChannel():
            return EfficientChannel(channels if settings.axis == "feature" else shape[1], **options)
        case config.Cbam():
            if settings.spatial_kernel is None:
                options["spatial_kernel"] = 0 if is_3d else 7
            return Cbam(channels, **options)
        case config.NonLocal():
            return NonLocal(channels, is_3d=is_3d, **options)
        case config.StripPooling():
            return StripPooling(channels, **options)
        case config.Coordinate():
            return Coordinate(channels, **options)
        case config.GatherExcite():
            return GatherExcite(**options)
        case config.SimAm():
            return SimAm(**options)
