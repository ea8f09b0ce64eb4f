"""Small scenes that every test may use, and where the real ones lie."""

import os
import sys
from pathlib import Path

import pytest

from hsi_se.cli import main
from hsi_se.config import Config
from hsi_se.config_file import load_config
from hsi_se.scene.scene import Scene
from hsi_se.scene.synthetic import make_synthetic_scene

ROOT = Path(__file__).parents[1]
REAL_SCENES = ROOT.parent / "shared" / "datasets"

# In CI the scenes are there: a test that needs them and cannot find them fails.
needs_real_scenes = pytest.mark.skipif(
    not REAL_SCENES.is_dir() and not os.environ.get("CI"), reason="the real scenes are not here"
)

# The smallest experiment that runs the whole flow: a second or two.
TINY = (
    "scene={synthetic: 0, rows: 24, cols: 24, bands: 16}",
    "reduction={kind: pca, components: 13, fit_on: train}",
    "patch.size=9",
    "train={epochs: 2, batch_size: 32}",
)


@pytest.fixture(scope="session")
def small_scene() -> Scene:
    return make_synthetic_scene(seed=0, rows=32, cols=28, bands=20)


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return load_config(ROOT / "configs" / "demo.yaml", TINY)


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
