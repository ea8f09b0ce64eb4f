"""One evaluated run, and a reader with its page before them."""

import shutil

import numpy as np
import pytest
import rasterio

import hsi_se
from hsi_se.config.model import Svm
from hsi_se.config.yaml_file import load_config
from hsi_se.reports.explorer import RunFiles
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import ClassPixels, Explanation, GateExplanation, ModeComparison
from hsi_se.scene.synthetic import make_synthetic_scene
from tests.conftest import CPU, ROOT, TINY, give_temperature, quick_baselines
from tests.reports.reader import Reader

EXCITATION = ((0.25, 0.5, 0.75), (0.5, 0.5, 0.3))
GRID = rasterio.Affine(30, 0, 360_000, 0, -30, 5_810_000)


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> RunFolder:
    """More epochs than two would leave the little errors that the tests want to see none."""
    config = load_config(ROOT / "configs" / "demo.yaml", TINY)
    folder = hsi_se.train(config, out=tmp_path_factory.mktemp("runs") / "tiny", session=CPU)
    give_temperature(folder, 0.6)
    hsi_se.evaluate(folder)
    return folder


@pytest.fixture(scope="session")
def explained(run, tmp_path_factory) -> RunFolder:
    """A copy of the run, with what its gates do."""
    copy = RunFolder(shutil.copytree(run.path, tmp_path_factory.mktemp("explained") / "run"))
    hsi_se.explain(copy, session=CPU)
    return copy


@pytest.fixture(scope="session")
def files(run) -> RunFiles:
    return RunFiles.read(run)


@pytest.fixture(scope="session")
def scene():
    return hsi_se.load_scene(load_config(ROOT / "configs" / "demo.yaml", TINY).scene)


@pytest.fixture(scope="session")
def placed(tmp_path_factory) -> RunFolder:
    """Three folds of a scene on a grid of 30 m in UTM, wider than high, pooled."""
    folder = tmp_path_factory.mktemp("placed")
    scene = make_synthetic_scene(seed=0, rows=24, cols=36, bands=16)
    for name, array in (("cube", np.moveaxis(scene.cube, 2, 0)), ("labels", scene.labels[None].astype(np.int16))):
        profile = {"driver": "GTiff", "height": 24, "width": 36, "count": len(array), "dtype": array.dtype}
        with rasterio.open(folder / f"{name}.tif", "w", crs="EPSG:32633", transform=GRID, **profile) as file:
            file.write(array)
    changes = (
        f"scene={{cube: {folder}/cube.tif, labels: {folder}/labels.tif}}",
        "split={kind: folds, by: blocks, block_size: 6, folds: 3, buffer: 5}",
        "model={name: lda}",
    )
    config = load_config(ROOT / "configs" / "demo.yaml", (*TINY, *changes))
    run = RunFolder(folder / "run")
    for number, fold in enumerate(config.list_folds(), start=1):
        hsi_se.train(fold, out=run.fold(number).path, session=CPU)
    with quick_baselines(Svm(name="svm")):
        hsi_se.evaluate(run)
    return run


@pytest.fixture
def reader(browser, run):
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, color_scheme="light")
    yield Reader(context.new_page()).open(run)
    context.close()


def make_explanation(*, crop: str = "crop {}", gates_in_words: str = "", modes_in_words: str = "") -> Explanation:
    """One gate of three channels over two classes."""
    gate = GateExplanation(
        point="fold", block="3→1→3", axis="feature", between_class_std=0.125, between_class_share=0.5,
        mean_excitation=EXCITATION, spectrum=None, no_spectrum="none",
    )  # fmt: skip
    modes = ModeComparison(
        num_pixels=18, num_test=18, batch_size=9, causes=(), evaluation=1.0, training=None, num_changed=0
    )
    return Explanation(
        modes=modes, gates_in_words=gates_in_words, modes_in_words=modes_in_words,
        name="demo", scene="farm", pixels="test", palette=((0, 0, 0),) * 2, gates=(gate,), skipped=(),
        classes=tuple(ClassPixels(label=k, name=crop.format(k), num_pixels=9) for k in (1, 2)),
    )  # fmt: skip
