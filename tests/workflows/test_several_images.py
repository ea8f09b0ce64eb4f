"""One classifier of several images: every image is predicted as if it were alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

import hsi_se
from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError
from hsi_se.reports.explorer import Explorer
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import open_run
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.evaluate import evaluate_on
from hsi_se.workflows.preparation import prepare
from tests.conftest import CPU, ROOT, TINY

NAMES = ("north", "east", "south")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of one sensor, of different sizes."""
    folder = tmp_path_factory.mktemp("images")
    for seed, (name, rows, cols) in enumerate([("north", 24, 30), ("east", 30, 24), ("south", 26, 26)]):
        scene = make_synthetic_scene(seed=0, rows=rows, cols=cols, bands=16)
        np.save(folder / f"{name}.npy", np.asarray(scene.cube) + np.float32(seed / 100))
        np.save(folder / f"{name}_gt.npy", scene.labels)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    images = (f"{{cube: {folder}/{name}.npy, labels: {folder}/{name}_gt.npy}}" for name in NAMES)
    scene = f"scene={{images: [{', '.join(images)}]}}"
    return load_config(ROOT / "configs" / "demo.yaml", [*TINY, scene, "prediction.smoothing={spatial: 1, range: 0.3}"])


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = hsi_se.train(config, out=tmp_path_factory.mktemp("runs") / "images", session=CPU)
    hsi_se.evaluate(run)
    return run


def test_each_image_is_predicted_as_if_it_were_alone(run: RunFolder, folder: Path) -> None:
    opened, bundle = open_run(run), run.read_bundle()
    canvas = run.read_arrays(Explorer, run.explorer).prediction
    for image in opened.scene.images:
        alone = hsi_se.map_scene(bundle, folder / f"{image.name}.npy", session=CPU)
        here = np.array([0, *bundle.class_ids])[canvas[image.window]]
        np.testing.assert_array_equal(here, alone.labels)


def test_nothing_is_predicted_between_the_images(run: RunFolder) -> None:
    opened = open_run(run)
    canvas = run.read_arrays(Explorer, run.explorer).prediction
    assert not canvas[~opened.scene.valid].any()


def test_the_page_shows_the_map_of_each_image_by_its_name(run: RunFolder) -> None:
    page = run.page.read_text()
    assert "<figcaption>Maps of the images</figcaption>" in page
    assert "Maps of the images north, east, south." in page
    assert [image.name for image in run.read_record().images] == ["north", "east", "south"]


def test_patches_that_would_reach_another_image_are_refused(folder: Path) -> None:
    for name, size in (("wide", 60), ("broad", 64)):
        scene = make_synthetic_scene(seed=0, rows=size, cols=size, bands=16)
        np.save(folder / f"{name}.npy", scene.cube)
        np.save(folder / f"{name}_gt.npy", scene.labels)
    files = ", ".join(f"{{cube: {folder}/{name}.npy, labels: {folder}/{name}_gt.npy}}" for name in ("wide", "broad"))
    changes = [*TINY, f"scene={{images: [{files}]}}", "patch.size=43", "model={name: svm}"]
    config = load_config(ROOT / "configs" / "demo.yaml", changes)
    with pytest.raises(ConfigError, match=r"patch\.size = 43: would reach from one image to the next, as they lie 40"):
        prepare(config, data=None, device=torch.device("cpu"))


def test_another_scene_of_several_images_is_mapped_and_evaluated_image_by_image(run: RunFolder, folder: Path) -> None:
    files = ", ".join(f"{{cube: {folder}/{name}.npy, labels: {folder}/{name}_gt.npy}}" for name in ("east", "south"))
    found = evaluate_on(run, f"{{images: [{files}]}}", session=CPU)
    alone = [evaluate_on(run, f"{{cube: {folder}/{n}.npy, labels: {folder}/{n}_gt.npy}}", session=CPU) for n in NAMES]
    assert found.scene == "2 images"
    np.testing.assert_array_equal(
        found.evaluation.confusion, alone[1].evaluation.confusion + alone[2].evaluation.confusion
    )
