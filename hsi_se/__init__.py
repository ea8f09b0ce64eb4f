"""Hyperspectral image classification with HybridSN and attention.

The functions below are imported when they are first used, so that `import hsi_se` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsi_se.bundled import load_bundle
    from hsi_se.cartography import map_scene
    from hsi_se.config_file import load_config
    from hsi_se.experiment import evaluate, train
    from hsi_se.mapping.logits import predict_logits
    from hsi_se.models import build_model
    from hsi_se.models.insertion import insert_attention
    from hsi_se.sampling.splits import make_split
    from hsi_se.scene.readers import load_scene

__version__ = "0.1.0"
__all__ = [
    "build_model",
    "evaluate",
    "insert_attention",
    "load_bundle",
    "load_config",
    "load_scene",
    "make_split",
    "map_scene",
    "predict_logits",
    "train",
]

_HOMES = {
    "build_model": "hsi_se.models",
    "evaluate": "hsi_se.experiment",
    "insert_attention": "hsi_se.models.insertion",
    "load_bundle": "hsi_se.bundled",
    "load_config": "hsi_se.config_file",
    "load_scene": "hsi_se.scene.readers",
    "make_split": "hsi_se.sampling.splits",
    "map_scene": "hsi_se.cartography",
    "predict_logits": "hsi_se.mapping.logits",
    "train": "hsi_se.experiment",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'hsi_se' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
