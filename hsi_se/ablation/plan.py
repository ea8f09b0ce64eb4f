"""Estimates what an ablation will cost before any run: the size and one timed step of each variant."""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hsi_se.ablation.file import Ablation, Overrides
from hsi_se.ablation.run import check_runs, check_scenes, find_folder
from hsi_se.ablation.summary import is_finished
from hsi_se.config.experiment import Config
from hsi_se.config.model import Network
from hsi_se.models import build_model
from hsi_se.progress import Silent
from hsi_se.sampling.patches import PatchDataset
from hsi_se.sampling.splits import make_split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.system.memory import fixed_threads
from hsi_se.training.fit import fit
from hsi_se.workflows.preview import describe_network


@dataclass(frozen=True, eq=False)
class PlannedVariant:
    """A row of `hsi-se ablate --dry-run`: the runs of one variant and what each will cost.

    `training_s` is an estimate for one run, with all its folds, on this machine, from one timed step.
    """

    scene: str
    name: str
    settings: Overrides
    seeds: tuple[int, ...]
    num_finished: int
    num_parameters: int | None  # None, as the next two, for classifiers that are not networks
    macs: int | None
    training_s: float | None


def plan_ablation(
    ablation: Ablation, *, out: str | Path | None = None, data: str | Path | None = None
) -> list[PlannedVariant]:
    """Returns what an ablation would run. Trains one step of each variant and writes nothing."""
    check_scenes(ablation, data)
    folder = find_folder(ablation, out)
    check_runs(ablation, folder)
    rows = []
    for scene, name in itertools.product(ablation.scenes, ablation.variants):
        runs = [run for run in ablation.runs if (run.scene, run.variant) == (scene, name)]
        config, num_parts = runs[0].parts[0].config, len(runs[0].parts)
        truth = load_ground_truth(config.scene, data)
        num_train = len(make_split(truth, config.split, seed=config.seed, data=data).train)
        num_parameters = macs = training_s = None
        if isinstance(config.model, Network):
            network = describe_network(config, data=data)
            num_parameters, macs = network.num_parameters, network.macs
            with fixed_threads(ablation.threads):
                step_s = time_step(config, num_bands=network.input_shape[1], num_classes=truth.num_classes)
            training_s = num_parts * config.train.epochs * -(-num_train // config.train.batch_size) * step_s
        seeds, num_finished = tuple(run.seed for run in runs), sum(is_finished(run, folder) for run in runs)
        settings, cost = ablation.variants[name], (num_parameters, macs, training_s)
        rows.append(PlannedVariant(scene, name, settings, seeds, num_finished, *cost))
    return rows


def time_step(config: Config, *, num_bands: int, num_classes: int) -> float:
    """Returns the seconds of one full-size training step on random patches, after one to warm up."""
    size, num_patches = config.patch.size, config.train.batch_size
    cube = torch.randn(size + num_patches - 1, size, num_bands)
    pixels = np.stack([np.arange(num_patches), np.zeros(num_patches, np.int64)], axis=1)
    targets = np.arange(num_patches) % num_classes
    patches = PatchDataset(cube, pixels, patch_size=size, targets=targets)
    nothing = PatchDataset(cube, pixels[:0], patch_size=size)
    seconds = []
    for _ in range(2):
        model = build_model(config.model, num_bands=num_bands, patch_size=size, num_classes=num_classes)
        start = time.perf_counter()
        fit(
            model,
            train=patches,
            val=nothing,
            num_classes=num_classes,
            settings=config.train.model_copy(update={"epochs": 1}),
            seed=0,
            observer=Silent(),
        )
        seconds.append(time.perf_counter() - start)
    return seconds[-1]
