"""Hyperspectral image classification with HybridSN and attention.

The functions below are imported when they are first used, so that `import hsi_se` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

from hsi_se.version import __version__

if TYPE_CHECKING:
    from hsi_se.config.registry import load_plugin as load_plugin
    from hsi_se.config.registry import register_attention as register_attention
    from hsi_se.config.registry import register_network as register_network
    from hsi_se.config.yaml_file import load_config as load_config
    from hsi_se.models import build_model as build_model
    from hsi_se.models.insertion import insert_attention as insert_attention
    from hsi_se.prediction.bundled import load_bundle as load_bundle
    from hsi_se.prediction.bundled import map_scene as map_scene
    from hsi_se.prediction.logits import predict_logits as predict_logits
    from hsi_se.sampling.splits import make_split as make_split
    from hsi_se.scene.loading import load_scene as load_scene
    from hsi_se.system.session import Session as Session
    from hsi_se.workflows.evaluate import evaluate as evaluate
    from hsi_se.workflows.train import train as train

_HOMES = {
    "Session": "hsi_se.system.session",
    "build_model": "hsi_se.models",
    "evaluate": "hsi_se.workflows.evaluate",
    "insert_attention": "hsi_se.models.insertion",
    "load_bundle": "hsi_se.prediction.bundled",
    "load_config": "hsi_se.config.yaml_file",
    "load_plugin": "hsi_se.config.registry",
    "load_scene": "hsi_se.scene.loading",
    "make_split": "hsi_se.sampling.splits",
    "map_scene": "hsi_se.prediction.bundled",
    "predict_logits": "hsi_se.prediction.logits",
    "register_attention": "hsi_se.config.registry",
    "register_network": "hsi_se.config.registry",
    "train": "hsi_se.workflows.train",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'hsi_se' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
