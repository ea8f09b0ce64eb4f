"""Describes the split and the network of a config, and their cost, before anything is trained."""

from dataclasses import dataclass
from pathlib import Path

from hsi_se.config.base import unknown
from hsi_se.config.experiment import Config, PcaReduction
from hsi_se.config.model import Network, list_blocks, list_models
from hsi_se.errors import ConfigError
from hsi_se.evaluation.audit import SplitAudit, audit_split
from hsi_se.models import build_model
from hsi_se.models.cost import BlockCost, StageCost, compare_blocks, count_stage_costs
from hsi_se.sampling.splits import make_split
from hsi_se.scene.catalogue import find_known_scene
from hsi_se.scene.loading import load_ground_truth, load_scene
from hsi_se.scene.scene import GroundTruth
from hsi_se.system.session import Session


def audit_config(config: Config, *, data: str | Path | None = None) -> tuple[GroundTruth, SplitAudit]:
    """Returns the labels and the audit of a config's split; the cube is not needed.

    Raises:
        HsiError: the labels cannot be read, or not split as the config asks.
    """
    truth = load_ground_truth(config.scene, data)
    split = make_split(truth, config.split, seed=config.seed, data=data)
    truth = split.relabel(truth)
    return truth, audit_split(truth, split, config)


@dataclass(frozen=True)
class NetworkDescription:
    """What `hsi-se info` shows: the stages in order and their totals; MACs are per patch."""

    title: str
    input_shape: tuple[int, ...]
    rows: tuple[StageCost, ...]

    @property
    def num_parameters(self) -> int:
        return sum(row.num_parameters for row in self.rows)

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)


def describe_network(config: Config, *, data: str | Path | None = None) -> NetworkDescription:
    """Returns the cost of each stage of a config's network for its scene.

    For a known scene, bands and classes come from the catalogue, so that its files are not needed.

    Raises:
        HsiError: the config's scene cannot be found, or the network does not fit it.
    """
    name, sizes = _find_sizes(config, data)
    model = build_model(config.model, **sizes)
    shape = (1, sizes["num_bands"], config.patch.size, config.patch.size)
    title = f"{config.model.name} on {name}, {sizes['num_classes']} classes"
    return NetworkDescription(title, shape, tuple(count_stage_costs(model)))


def compare_attention(config: Config, *, session: Session = Session()) -> list[BlockCost]:
    """Returns what each kind of block costs at each point of a config's network.

    Raises:
        HsiError: as `describe_network`, or the config's model is not a network.
    """
    if not isinstance(config.model, Network):
        raise ConfigError(f"model.name = {config.model.name}: has no points for attention; choose a network")
    _, sizes = _find_sizes(config, session.data)
    session.observer.start("comparing", total=len(config.model.points) * len(list_blocks()), unit="blocks")
    rows = []
    for row in compare_blocks(config.model, **sizes):
        rows.append(row)
        session.observer.advance(1)
    return rows


def describe_points(name: str) -> list[tuple[str, list[str]]]:
    """Returns the points of a network, each with the kinds of block that fit there.

    Raises:
        ConfigError: there is no network with this name.
    """
    models = {key: kind for key, kind in list_models().items() if issubclass(kind, Network)}
    if name not in models:
        raise ConfigError(f"--points {name}: {unknown(name, 'network', tuple(models))}")
    points_3d, blocks = models[name].points_3d, list_blocks()
    return [
        (point, [block.kind for block in blocks if not block.explain_misfit(is_3d=point in points_3d)])
        for point in models[name].points
    ]


def _find_sizes(config: Config, data: str | Path | None) -> tuple[str, dict[str, int]]:
    """Returns the scene's name, and the sizes that `build_model` takes."""
    known = find_known_scene(config.scene) if isinstance(config.scene, str) else None
    if known is not None:
        name, num_bands, num_classes = known.title, known.shape[2], len(known.class_names)
    else:
        scene = load_scene(config.scene, data)
        name, num_bands, num_classes = scene.name, scene.num_bands, scene.num_classes
    if isinstance(config.reduction, PcaReduction):
        num_bands = config.reduction.components
    return name, {"num_bands": num_bands, "patch_size": config.patch.size, "num_classes": num_classes}
