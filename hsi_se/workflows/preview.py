"""Describes the split and the network of a config, and their cost, before anything is trained."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from hsi_se.config.base import unknown
from hsi_se.config.experiment import Config
from hsi_se.config.model import Network, list_blocks, list_models
from hsi_se.config.registry import list_plugins
from hsi_se.config.split import AllSplit
from hsi_se.errors import ConfigError, SplitError
from hsi_se.evaluation.audit import SplitAudit, audit_split, pool_audits
from hsi_se.models import build_model
from hsi_se.models.cost import BlockCost, StageCost, compare_blocks, count_stage_costs
from hsi_se.sampling.splits import Split, make_split
from hsi_se.scene.catalogue import find_known_scene
from hsi_se.scene.loading import load_ground_truth, load_scene
from hsi_se.scene.scene import GroundTruth
from hsi_se.system.session import Session


def audit_config(
    config: Config, *, data: str | Path | None = None
) -> tuple[GroundTruth, SplitAudit, tuple[Split, ...]]:
    """Returns the labels, the audit of a config's split, and the split, or those of all folds; needs no cube.

    HsiError if the labels cannot be read, or not split as the config asks, or there are no test pixels.
    """
    if isinstance(config.split, AllSplit):
        raise SplitError("split.kind = all: trains on every labelled pixel; look at the split of its folds instead")
    truth = load_ground_truth(config.scene, data)
    parts = config.list_folds()
    splits = tuple(make_split(truth, part.split, seed=config.seed, data=data) for part in parts)
    truth = splits[0].relabel(truth)
    audits = [audit_split(truth, split, part) for split, part in zip(splits, parts, strict=True)]
    return truth, pool_audits(audits) if len(parts) > 1 else audits[0], splits


_LARGEST = 65_536


@dataclass(frozen=True)
class InputSize:
    """The size of a network's input where it is not the config's; None stands for that of the config."""

    patch_size: int | None = None
    num_bands: int | None = None  # after the reduction
    num_classes: int | None = None

    @classmethod
    def parse(cls, size: str | None, num_classes: int | None = None) -> Self:
        """Returns the size `224`, `224x224` or `224x224x3`, rows × columns × bands; ConfigError if it is not square."""
        found = re.fullmatch(r"(\d+)(?:[x×](\d+)(?:[x×](\d+))?)?", size or "1")
        if found is None:
            raise ConfigError(f"--size {size}: not a size; write rows, columns and bands as 224x224x3")
        rows, cols, bands = (None if text is None else int(text) for text in found.groups())
        if cols not in (None, rows):
            raise ConfigError(f"--size {size}: networks take square patches; write {rows}x{rows}")
        limited = {f"--size {size}": (rows, bands), f"--classes {num_classes}": (num_classes,)}
        for option, values in limited.items():
            if not all(value is None or 1 <= value <= _LARGEST for value in values):
                raise ConfigError(f"{option}: out of range; write numbers from 1 to {_LARGEST:,}")
        return cls(None if size is None else rows, bands, num_classes)


@dataclass(frozen=True)
class NetworkDescription:
    """What `hsi-se info` shows: the stages in order and their totals; MACs are per patch."""

    title: str
    input_shape: tuple[int, ...]
    rows: tuple[StageCost, ...]
    bare_rows: tuple[StageCost, ...]  # of the same network without attention

    @property
    def num_parameters(self) -> int:
        return sum(row.num_parameters for row in self.rows)

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)


def describe_network(
    config: Config, *, size: InputSize = InputSize(), data: str | Path | None = None
) -> NetworkDescription:
    """Returns the cost of each stage of a config's network for its scene, or for an input of another size.

    For a known scene, bands and classes come from the catalogue, so that its files are not needed; nor are
    they if `size` gives both. Nothing is computed, so that any size takes the same time. HsiError if the scene cannot
    be found, or the network does not fit it.
    """
    name, sizes = _find_sizes(config, size, data)
    bare = config.model
    if isinstance(bare, Network):
        bare = bare.model_copy(update={"attention": {}})
    try:
        with torch.device("cpu" if list_plugins(config.model) else "meta"):  # plugins need not know of shapes alone
            rows, bare_rows = (tuple(count_stage_costs(build_model(each, **sizes))) for each in (config.model, bare))
    except ConfigError as error:
        if size.patch_size is None:
            raise
        text = str(error).replace("patch.size = ", "--size ").replace("patch.size:", "--size")
        raise ConfigError(text) from None
    shape = (1, sizes["num_bands"], sizes["patch_size"], sizes["patch_size"])
    return NetworkDescription(f"{config.model.name} on {name}, {sizes['num_classes']} classes", shape, rows, bare_rows)


def compare_attention(
    config: Config, *, size: InputSize = InputSize(), session: Session = Session()
) -> list[BlockCost]:
    """Returns what each kind of block costs at each point of a config's network.

    HsiError as in `describe_network`, or if the config's model is not a network.
    """
    if not isinstance(config.model, Network):
        raise ConfigError(f"model.name = {config.model.name}: has no points for attention; choose a network")
    _, sizes = _find_sizes(config, size, session.data)
    session.observer.start("comparing", total=len(config.model.points) * len(list_blocks()), unit="blocks")
    rows = []
    for row in compare_blocks(config.model, **sizes):
        rows.append(row)
        session.observer.advance(1)
    return rows


def describe_points(name: str) -> list[tuple[str, list[str]]]:
    """Returns the points of a network, each with the kinds of block that fit; ConfigError for an unknown name."""
    models = {key: kind for key, kind in list_models().items() if issubclass(kind, Network)}
    if name not in models:
        raise ConfigError(f"--points {name}: {unknown(name, 'network', tuple(models))}")
    points_3d, blocks = models[name].points_3d, list_blocks()
    return [
        (point, [block.kind for block in blocks if not block.explain_misfit(is_3d=point in points_3d)])
        for point in models[name].points
    ]


def _find_sizes(config: Config, size: InputSize, data: str | Path | None) -> tuple[str, dict[str, int]]:
    """Returns the scene's name, and the sizes that `build_model` takes."""
    patch_size, bands, classes = size.patch_size or config.patch.size, size.num_bands, size.num_classes
    known = find_known_scene(config.scene) if isinstance(config.scene, str) else None
    if bands is not None and classes is not None:
        if data is not None:
            raise ConfigError("--data: has no effect with bands in --size and with --classes; leave it out")
        name, of_scene = f"patches of {patch_size} × {patch_size} × {bands}", (bands, classes)
    elif known is not None:
        name, of_scene = known.title, (known.shape[2], len(known.class_names))
    else:
        scene = load_scene(config.scene, data)
        name, of_scene = scene.name, (scene.num_bands, scene.num_classes)
    reduced = config.reduction.components or of_scene[0]
    return name, {"num_bands": bands or reduced, "patch_size": patch_size, "num_classes": classes or of_scene[1]}
