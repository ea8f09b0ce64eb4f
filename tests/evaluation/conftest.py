"""Baselines of a scene, fitted and scored."""

import numpy as np

from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import load_config
from hsi_se.evaluation.baselines import SpectralBaseline, fit_spectral_baseline, predict_by_location
from hsi_se.evaluation.metrics import Evaluation, evaluate_test
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth, Scene
from tests.conftest import ROOT, TINY


def configure(*overrides: str) -> Config:
    return load_config(ROOT / "configs" / "demo.yaml", (*TINY, *overrides))


def fit(scene: Scene, split: Split, config: Config) -> SpectralBaseline:
    reduction = fit_reduction(scene.cube, config.reduction, train_pixels=split.train)
    return fit_spectral_baseline(scene, split, reduction.apply(scene.cube), config=config)


def make_scene(x: np.ndarray, y: np.ndarray, *, cols: int) -> Scene:
    """A scene of spectra `(n, bands)` with classes `(n,)` from 0, row by row."""
    labels = (y + 1).reshape(-1, cols).astype(np.int32)
    names = {int(label): f"class {label}" for label in np.unique(labels)}
    return Scene("made", labels, names, cube=x.reshape(*labels.shape, -1).astype(np.float32))


def score(scene: Scene, split: Split, baseline: SpectralBaseline) -> float:
    return evaluate_test(scene, split, baseline.labels).overall_accuracy


def evaluate_location_floor(truth: GroundTruth, split: Split) -> Evaluation:
    return evaluate_test(truth, split, predict_by_location(truth, split))
