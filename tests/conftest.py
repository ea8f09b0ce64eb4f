"""Small scenes that every test may use, and where the real ones lie."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from hsi_se.cli.main import main
from hsi_se.config.experiment import Config
from hsi_se.config.model import Lda, PixelClassifier, Svm
from hsi_se.config.yaml_file import load_config
from hsi_se.evaluation import baselines
from hsi_se.evaluation.confidence import TemperatureScaling
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.scene import Scene
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.system.session import Session

settings.register_profile("hsi-se", deadline=None)  # a busy machine is no fault
settings.load_profile("hsi-se")

ROOT = Path(__file__).parents[1]
REAL_SCENES = ROOT.parent / "shared" / "datasets"
CASES = ROOT.parent / "shared" / "cases"

# In CI the scenes are there: a test that needs them and cannot find them fails.
needs_real_scenes = pytest.mark.skipif(
    not REAL_SCENES.is_dir() and not os.environ.get("CI"), reason="the real scenes are not here"
)
needs_cases = pytest.mark.skipif(
    not CASES.is_dir() and not os.environ.get("CI"), reason="the public cases are not here"
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NO_BROWSER = "no chromium here (`apt-get install chromium`): the tests of pages in a browser are left out"


def pytest_collection_modifyitems(config, items) -> None:
    """Leaves out the tests of a GPU where there is none."""
    if torch.cuda.is_available():
        return
    left_out = [item for item in items if item.get_closest_marker("gpu")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter) -> None:
    """Says in one line what was left out for want of a browser, also where skips are not listed."""
    if any(NO_BROWSER in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(f"note: {NO_BROWSER}")


CPU = Session(device="cpu")

# The smallest experiment that runs the whole flow: a second or two.
TINY = (
    "scene={synthetic: 0, rows: 24, cols: 24, bands: 16}",
    "reduction={kind: pca, components: 13, fit_on: train}",
    "patch.size=9",
    "train={epochs: 2, batch_size: 32}",
    "prediction.calibration=none",
)


def set_options(*changes: str) -> list[str]:
    """The changes as `--set` options, without those that a later one replaces."""
    keys = [change.partition("=")[0] for change in changes]
    kept = (
        change
        for place, (key, change) in enumerate(zip(keys, changes, strict=True))
        if not any(f"{key}.".startswith(f"{later}.") for later in keys[place + 1 :])
    )
    return [part for change in kept for part in ("--set", change)]


def give_temperature(run: RunFolder, temperature: float) -> None:
    """Calibrates a run as a cross-fitting would: two epochs teach too little to show a gain."""
    scaling = TemperatureScaling(temperature, "cross-fit", 140, 140, gain=0.5, gain_low=0.25, gain_high=0.75)
    bundle = run.read_bundle()
    bundle = replace(bundle, facts=bundle.facts.model_copy(update={"scaling": scaling}))
    run.write_result(run.read_record(), bundle=bundle)


@pytest.fixture(scope="session")
def small_scene() -> Scene:
    return make_synthetic_scene(seed=0, rows=32, cols=28, bands=20)


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return load_config(ROOT / "configs" / "demo.yaml", TINY)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; in CI a test that cannot have one fails."""
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium refuses to sandbox what root starts
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield chromium
        chromium.close()


@contextmanager
def quick_baselines(*candidates: PixelClassifier) -> Iterator[None]:
    """Lets the spectral baseline choose from few candidates, by default an SVM and LDA."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "_CANDIDATES", candidates or (Svm(name="svm"), Lda(name="lda")))
        patch.setattr(baselines, "_GRID", ((100.0,), (1.0,)))
        yield


@pytest.fixture(scope="module")
def quick_baseline():
    """A spectral baseline from few candidates, for modules whose facts do not depend on which one is chosen.

    Not for modules that share a session's runs with others, nor for what other processes compute.
    """
    with quick_baselines():
        yield


@pytest.fixture
def call(monkeypatch, capfd):
    """Runs a command in this process and returns (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hsi-se", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return run
