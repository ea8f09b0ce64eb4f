"""Blocks for features of two sizes."""

from typing import Any

from pydantic import TypeAdapter
from torch import nn

from hsi_se.attention.placement import build_attention
from hsi_se.config.model import AttentionSettings
from hsi_se.models import initialize

FLAT, DEEP = (12, 5, 4), (12, 7, 5, 4)  # (c, h, w) and (c, d, h, w)


def make(kind: str, shape: tuple[int, ...], **changes: Any) -> nn.Module:
    block = TypeAdapter(AttentionSettings).validate_python({"kind": kind, **changes})
    module = build_attention(block, shape=shape)
    initialize(module, seed=0)
    for child in module.modules():  # a norm that starts at zero would hide what is behind it
        if isinstance(child, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.uniform_(child.running_mean, -0.5, 0.5)
            nn.init.uniform_(child.running_var, 0.5, 1.5)
    return module
