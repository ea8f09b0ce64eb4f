"""Builds attention modules from the config's block settings."""

from collections.abc import Callable

import torch
from torch import nn

from hsi_se.attention import AttentionBlock
from hsi_se.attention.cbam import Cbam
from hsi_se.attention.coordinate import Coordinate
from hsi_se.attention.eca import EfficientChannel
from hsi_se.attention.expectation_maximization import ExpectationMaximization
from hsi_se.attention.gather_excite import GatherExcite
from hsi_se.attention.nonlocal_block import NonLocal
from hsi_se.attention.scse import ConcurrentSqueezeExcite
from hsi_se.attention.simam import SimAm
from hsi_se.attention.squeeze_excite import SqueezeExcite
from hsi_se.attention.strip_pooling import StripPooling
from hsi_se.config import model as config

_BLOCKS: dict[str, Callable[..., AttentionBlock]] = {
    "se": SqueezeExcite, "eca": EfficientChannel, "cbam": Cbam, "scse": ConcurrentSqueezeExcite, "nonlocal": NonLocal,
    "em": ExpectationMaximization, "strip_pooling": StripPooling, "coordinate": Coordinate,
    "gather_excite": GatherExcite, "simam": SimAm,
}  # fmt: skip


def build_attention(settings: config.AttentionSettings | None, *, shape: tuple[int, ...]) -> nn.Module:
    """Returns the attention module of a point, or `nn.Identity()` without settings.

    `shape` is that of the point's features without the batch, `(c, d, h, w)` or `(c, h, w)`. The config has
    already checked that the block fits them.
    """
    if settings is None:
        return nn.Identity()
    is_3d = len(shape) == 4
    options = settings.model_dump(exclude={"kind", "start"})
    match settings:
        case config.Cbam(spatial_kernel=None):
            options["spatial_kernel"] = 0 if is_3d else 7
        case config.NonLocal() | config.ConcurrentSqueezeExcite() | config.ExpectationMaximization():
            options["is_3d"] = is_3d
        case config.GatherExcite():
            options["size"] = shape[1:]
    block = _BLOCKS[settings.kind](shape[1 if options.get("axis") == "band" else 0], **options)
    if isinstance(settings, config.Starting) and settings.start == "identity":
        block.strength = nn.Parameter(torch.zeros(1))
    return block
