"""A finished run is compared with its record: what was changed after training is refused, never used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import load_config
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.loading import load_scene
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.evaluate import assess_run
from hsi_se.workflows.train import train
from tests.conftest import CPU, ROOT

SCENE = make_synthetic_scene(seed=0, rows=24, cols=24, bands=16)
SETTINGS = ("model={name: lda}", "reduction={kind: none}", "split={kind: random, train: 0.2}")
COMMANDS = (("eval",), ("map",), ("explain",), ("report",), ("export", "--format", "torch"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a scene of files and an evaluated run of it."""
    folder = tmp_path_factory.mktemp("runs")
    np.save(folder / "cube.npy", SCENE.cube)
    np.save(folder / "labels.npy", SCENE.labels)
    scene = f"scene={{cube: {folder / 'cube.npy'}, labels: {folder / 'labels.npy'}}}"
    run = train(load_config(ROOT / "configs" / "demo.yaml", [scene, *SETTINGS]), out=folder / "run", session=CPU)
    assess_run(run, session=CPU)
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> RunFolder:
    return RunFolder(shutil.copytree(trained / "run", tmp_path / "run"))


def change_config(folder: RunFolder) -> Path:
    folder.config.write_text(folder.config.read_text().replace("seed: 0", "seed: 1"))
    return folder.config


def change_split(folder: RunFolder) -> Path:
    arrays = load_file(folder.split)
    arrays["train"], arrays["test"] = arrays["test"], arrays["train"]
    save_file(arrays, folder.split)
    return folder.split


def permute_classes(folder: RunFolder) -> Path:
    facts = json.loads(folder.bundle_facts.read_text())
    facts["class_names"].reverse()
    folder.bundle_facts.write_text(json.dumps(facts))
    return folder.bundle_facts


def change_weights(folder: RunFolder, factor: float = 2.0) -> Path:
    weights = load_file(folder.bundle_arrays)
    is_weight = {name: name.startswith("model.") and array.dtype.kind == "f" for name, array in weights.items()}
    changed = {name: np.asarray(array * array.dtype.type(factor)) for name, array in weights.items() if is_weight[name]}
    save_file({**weights, **changed}, folder.bundle_arrays)
    return folder.bundle_facts


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("change", [change_config, change_split, permute_classes, change_weights])
def test_every_command_refuses_a_run_that_was_changed(folder, call, change, command):
    path = change(folder)
    code, _, error = call(*command, folder)
    assert (code, error.count("\n")) == (2, 1), error
    assert f"{path}: not what training wrote (digest " in error


def test_weights_that_are_lost_are_named(folder, call):
    change_weights(folder, factor=np.nan)
    code, _, error = call("eval", folder)
    assert (code, error.count("\n")) == (2, 1), error
    assert error.startswith(f"hsi-se: {folder.bundle_arrays}: model.")


def test_a_report_of_another_run_is_refused(folder, call):
    report = json.loads(folder.report.read_text())
    folder.report.write_text(json.dumps(report | {"config_digest": "0" * 64}))
    code, _, error = call("report", folder)
    assert (code, error) == (2, f"hsi-se: {folder.report}: is the report of another run; run `hsi-se eval {folder}`\n")


def test_the_name_of_a_run_may_change(folder, call):
    text = folder.config.read_text()
    folder.config.write_text(text.replace("name: demo", "name: another"))
    assert folder.config.read_text() != text
    assert call("report", folder)[0] == 0


@pytest.mark.parametrize("other", [SCENE.cube[:, ::-1], SCENE.cube[:20], SCENE.cube - 20000])
def test_a_map_of_the_own_scene_refuses_another_image_in_its_place(trained, folder, call, other):
    cube = trained / "cube.npy"
    np.save(cube, other)
    try:
        code, _, error = call("map", folder)
    finally:
        np.save(cube, SCENE.cube)
    assert (code, error.count("\n")) == (2, 1), error
    assert f"{folder}: was trained on another edition of " in error
    assert call("map", folder)[0] == 0


def test_several_images_of_any_type_have_the_digests_of_their_files(trained):
    """On a canvas of one type, the largest of both."""
    cubes = {"one": SCENE.cube, "two": np.round(SCENE.cube[:20] * 1000).astype(np.int16)}
    for name, cube in cubes.items():
        np.save(trained / f"{name}.npy", cube)
        np.save(trained / f"{name}_labels.npy", SCENE.labels[: len(cube)])
    listed = [{"cube": f"{name}.npy", "labels": f"{name}_labels.npy"} for name in cubes]
    several = load_scene(SceneFiles.model_validate({"images": listed}), trained)
    alone = [load_scene(SceneFiles.model_validate(each), trained).image_digests[0] for each in listed]
    assert several.image_digests == tuple(alone)
    assert len(set(alone)) == 2
