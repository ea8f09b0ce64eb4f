"""Hyperspectral image classification with HybridSN and attention.

The names below are imported when they are first used, so that `import hsi_se` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

from hsi_se.version import __version__

if TYPE_CHECKING:
    from hsi_se.api import ablate as ablate
    from hsi_se.api import evaluate as evaluate
    from hsi_se.api import explain as explain
    from hsi_se.api import gap as gap
    from hsi_se.api import load_scene as load_scene
    from hsi_se.api import make_split as make_split
    from hsi_se.api import map_scene as map_scene
    from hsi_se.api import report as report
    from hsi_se.api import resume as resume
    from hsi_se.api import train as train
    from hsi_se.config.experiment import Config as Config
    from hsi_se.config.registry import load_plugin as load_plugin
    from hsi_se.config.registry import register_attention as register_attention
    from hsi_se.config.registry import register_network as register_network
    from hsi_se.config.yaml_file import load_config as load_config
    from hsi_se.errors import HsiError as HsiError
    from hsi_se.maps.write import write_map as write_map
    from hsi_se.models import build_model as build_model
    from hsi_se.models.insertion import insert_attention as insert_attention
    from hsi_se.prediction.bundled import load_bundle as load_bundle
    from hsi_se.prediction.class_map import ClassMap as ClassMap
    from hsi_se.prediction.logits import predict_logits as predict_logits
    from hsi_se.progress import Silent as Silent
    from hsi_se.runs.folder import RunFolder as Run  # noqa: F401 - public
    from hsi_se.runs.report import RunReport as Evaluation  # noqa: F401 - public
    from hsi_se.sampling.splits import Split as Split
    from hsi_se.scene.scene import Scene as Scene
    from hsi_se.system.session import Session as Session

_API = ("ablate", "evaluate", "explain", "gap", "load_scene", "make_split", "map_scene", "report", "resume", "train")
_HOMES = {name: f"hsi_se.api.{name}" for name in _API} | {
    "ClassMap": "hsi_se.prediction.class_map.ClassMap",
    "Config": "hsi_se.config.experiment.Config",
    "Evaluation": "hsi_se.runs.report.RunReport",
    "HsiError": "hsi_se.errors.HsiError",
    "Run": "hsi_se.runs.folder.RunFolder",
    "Scene": "hsi_se.scene.scene.Scene",
    "Session": "hsi_se.system.session.Session",
    "Silent": "hsi_se.progress.Silent",
    "Split": "hsi_se.sampling.splits.Split",
    "build_model": "hsi_se.models.build_model",
    "insert_attention": "hsi_se.models.insertion.insert_attention",
    "load_bundle": "hsi_se.prediction.bundled.load_bundle",
    "load_config": "hsi_se.config.yaml_file.load_config",
    "predict_logits": "hsi_se.prediction.logits.predict_logits",
    "load_plugin": "hsi_se.config.registry.load_plugin",
    "register_attention": "hsi_se.config.registry.register_attention",
    "register_network": "hsi_se.config.registry.register_network",
    "write_map": "hsi_se.api.write_map",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'hsi_se' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
