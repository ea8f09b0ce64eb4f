"""A run of a module's own scene in memory, and its evaluation."""

import pytest

import hsi_se
from tests.conftest import CPU

CONFIG = {
    "split": {"kind": "random", "train": 0.2},
    "reduction": {"kind": "pca", "components": 13, "fit_on": "train"},
    "patch": {"size": 9},
    "model": {"name": "lda"},
    "train": {"epochs": 1},
    "prediction": {"calibration": "none"},
}


@pytest.fixture(scope="module")
def run(scene, tmp_path_factory, quick_baseline):
    del quick_baseline
    return hsi_se.train(CONFIG, scene=scene, out=tmp_path_factory.mktemp("runs") / "run", session=CPU)


@pytest.fixture(scope="module", name="evaluation")
def _evaluation(run):
    return hsi_se.evaluate(run, session=CPU)
