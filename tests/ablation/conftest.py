"""Two finished ablations that tests share: two variants with two seeds each, and one config with three seeds.

A test that changes one works on a copy of its folder.
"""

from pathlib import Path

import pytest

from hsi_se.ablation import run as runner
from hsi_se.ablation.file import PlannedRun, load_ablation, repeat_over_seeds
from hsi_se.ablation.record import AblationFolder
from hsi_se.config.yaml_file import load_config
from hsi_se.scene.synthetic import make_synthetic_scene
from tests.conftest import CPU, ROOT, TINY

DEMO = ROOT / "configs" / "demo.yaml"
LABELS = make_synthetic_scene(seed=0, rows=24, cols=24, bands=16).labels  # of the scene of TINY
SET = ", ".join(text.replace("=", ": ", 1) for text in TINY)
FILE = f"""
base: {DEMO}
seeds: 0-1
set: {{{SET}}}
variants:
  none: {{model.attention: {{}}}}
  se:   {{model.attention: {{fold: {{kind: se}}}}}}
"""


class Log:
    """Keeps what a watcher receives."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, int, str]] = []

    def note(self, text: str) -> None: ...

    def change(self, run: PlannedRun, state: str, *, accuracy: float | None = None) -> None:
        assert (accuracy is not None) == (state == "finished")
        self.changes.append((run.variant, run.seed, state))

    def seeds(self, state: str) -> list[int]:
        return [seed for _, seed, each in self.changes if each == state]


def make_tiny(*overrides: str):
    """The smallest config, smoothed, so that there are accuracies before and after."""
    smooth = "prediction.smoothing={spatial: 1, range: 0.5}"
    return load_config(DEMO, [*TINY, "train.epochs=1", smooth, *overrides])


@pytest.fixture(scope="session")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("file") / "tiny.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="session")
def finished(file, tmp_path_factory) -> AblationFolder:
    out = tmp_path_factory.mktemp("ablation") / "out"
    return runner.run_ablation(load_ablation(file), out=out, session=CPU, watcher=Log())[0]


@pytest.fixture(scope="session")
def over_seeds(tmp_path_factory) -> AblationFolder:
    out = tmp_path_factory.mktemp("seeds") / "out"
    ablation = repeat_over_seeds(make_tiny(), [0, 1, 2])
    return runner.run_ablation(ablation, out=out, session=CPU, watcher=Log())[0]
