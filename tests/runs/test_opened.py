"""A run finds the files of its scene from any folder, as training did."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from hsi_se.config.yaml_file import load_config
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.train import train
from tests.conftest import CPU, ROOT, TINY

SCENE = make_synthetic_scene(seed=0, rows=24, cols=24, bands=16)


def write_scene(folder: Path, *, gain: float = 1.0) -> None:
    """A cube and its labels, two folders deep, and masks of a split beside them."""
    (folder / "in" / "here").mkdir(parents=True)
    np.save(folder / "in" / "here" / "cube.npy", gain * SCENE.cube)
    scipy.io.savemat(folder / "in" / "here" / "labels.mat", {"labels": SCENE.labels})
    first = np.arange(SCENE.labels.size).reshape(SCENE.labels.shape) % 4 == 0
    scipy.io.savemat(
        folder / "masks.mat", {"train": np.where(first, SCENE.labels, 0), "test": np.where(first, 0, SCENE.labels)}
    )


FILES = (
    "scene={cube: in/here/cube.npy, labels: in/here/labels.mat}",
    "split={kind: masks, train: masks.mat, train_key: train, test: masks.mat, test_key: test}",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A project folder with a scene and a run that was trained there with relative paths."""
    project = tmp_path_factory.mktemp("user") / "u1"
    write_scene(project)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        train(load_config(ROOT / "configs" / "demo.yaml", [*TINY, *FILES]), out="runs/my", session=CPU)
    return project


COMMANDS = (
    ("eval", "{run}"),
    ("explain", "{run}"),
    ("map", "{run}"),
    ("map", "{run}", "--set", "scene.nodata=-1", "--out", "other"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_on_a_run_work_from_the_folder_above(trained, tmp_path, monkeypatch, call, command):
    shutil.copytree(trained, tmp_path / "u1")
    write_scene(tmp_path, gain=2.0)  # files of the same names, but of another scene
    monkeypatch.chdir(tmp_path)
    code, _, error = call(*(part.format(run="u1/runs/my") for part in command), "--device", "cpu")
    assert (code, error.count("another edition")) == (0, 0), error


def test_a_run_that_was_moved_with_its_data_finds_it(trained, tmp_path, monkeypatch, call):
    shutil.move(shutil.copytree(trained, tmp_path / "u1"), tmp_path / "elsewhere")
    shutil.move(trained, trained.with_name("gone"))
    try:
        monkeypatch.chdir(tmp_path)
        code, _, error = call("eval", "elsewhere/runs/my", "--device", "cpu")
    finally:
        shutil.move(trained.with_name("gone"), trained)
    assert code == 0, error


def test_another_scene_is_named_from_the_current_folder(trained, tmp_path, monkeypatch, call):
    write_scene(tmp_path, gain=1000.0)  # so far from the training's values that it is refused
    monkeypatch.chdir(tmp_path)
    code, _, error = call("map", trained / "runs" / "my", "--scene", "in/here/cube.npy")
    assert code == 2
    assert "its values range from" in error


def test_a_file_that_is_nowhere_is_named_with_the_folders_searched(trained, tmp_path, monkeypatch, call):
    shutil.copytree(trained / "runs", tmp_path / "u1" / "runs")
    monkeypatch.chdir(tmp_path)
    cube = trained / "in" / "here" / "cube.npy"
    shutil.move(cube, cube.with_suffix(".moved"))
    try:
        code, _, error = call("eval", "u1/runs/my")
    finally:
        shutil.move(cube.with_suffix(".moved"), cube)
    assert code == 2
    assert "scene.cube: no file in/here/cube.npy" in error
    assert str(trained) in error
    assert "--data DIR" in error
