"""A training that starts from another run has its reduction and its weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

import hsi_se
from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, RunError
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.preparation import Prepared, prepare
from tests.conftest import CPU, ROOT, TINY


@pytest.fixture(scope="module")
def run(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return hsi_se.train(tiny_config, out=tmp_path_factory.mktemp("runs") / "first", session=CPU)


def start(run: RunFolder | str, *changes: str) -> Prepared:
    config = load_config(ROOT / "configs" / "demo.yaml", [*TINY, f"train.start_from={run}", *changes])
    return prepare(config, data=None, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def other_scene(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The scene of another seed, without its last class."""
    folder, scene = tmp_path_factory.mktemp("scene"), make_synthetic_scene(seed=1, rows=24, cols=24, bands=16)
    np.save(folder / "cube.npy", scene.cube)
    np.save(folder / "gt.npy", np.where(scene.labels == scene.class_ids[-1], 0, scene.labels))
    return f"scene={{cube: {folder}/cube.npy, labels: {folder}/gt.npy}}"


def test_the_reduction_and_all_weights_are_those_of_the_run(run: RunFolder) -> None:
    bundle, started = run.read_bundle(), start(run)
    assert started.network is not None
    for name, value in started.network.state_dict().items():
        np.testing.assert_array_equal(value, bundle.weights[name])
    np.testing.assert_array_equal(started.reduction.components, bundle.reduction.components)
    assert f"training starts from the weights and the reduction of {run}" in started.notes


def test_other_classes_get_a_new_last_layer(run: RunFolder, other_scene: str) -> None:
    bundle, started = run.read_bundle(), start(run, other_scene)
    assert started.network is not None
    weights = started.network.state_dict()
    new = [name for name in weights if weights[name].numel() != bundle.weights[name].size]
    assert new == [name for name in weights if name.startswith("head.")][-2:]
    for name in weights.keys() - {*new}:
        np.testing.assert_array_equal(weights[name], bundle.weights[name])
    assert any("its classes are others, so the last layer is new" in note for note in started.notes)


def test_a_training_changes_the_weights_that_it_starts_from(run: RunFolder, other_scene: str, tmp_path: Path) -> None:
    changes = [*TINY, f"train.start_from={run}", other_scene]
    second = hsi_se.train(load_config(ROOT / "configs" / "demo.yaml", changes), out=tmp_path / "second", session=CPU)
    first, then = run.read_bundle(), second.read_bundle()
    np.testing.assert_array_equal(first.reduction.components, then.reduction.components)
    assert any(not np.array_equal(first.weights[name], then.weights[name]) for name in first.weights)
    assert 0 <= hsi_se.evaluate(second).overall_accuracy <= 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (["patch.size=11"], r"that run has other settings \(patch.size is 11 here and 9 there\); write the same ones"),
        (["split.seed=7"], r"was trained on \d+ of the test pixels of this split; use its split and its seed"),
        (["scene.bands=20"], "was trained on 16 bands, and scene .* has 20; use a scene with the same bands"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(run: RunFolder, changes: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"train.start_from = {run}: {problem}"):
        start(run, *changes)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        start(str(tmp_path / "none"))
