"""From a config's block to the module that fits its point."""

from torch import nn

from hsi_se import config
from hsi_se.attention.squeeze_excite import SqueezeExcite


def build_attention(settings: config.AttentionSettings, *, shape: tuple[int, ...]) -> nn.Module:
    """Returns the block for a point whose features have `shape`: (c, d, h, w) or (c, h, w).

    The config has already proved that the block is legal at the point.
    """
    match settings:
        case config.SqueezeExcite():
            return SqueezeExcite(
                channels=shape[0] if settings.axis == "feature" else shape[1],
                reduction=settings.reduction,
                bias=settings.bias,
                form=settings.form,
                squeeze=settings.squeeze,
                axis=settings.axis,
            )
