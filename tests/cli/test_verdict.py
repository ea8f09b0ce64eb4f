"""The verdict of a run where a user meets it: the terminal, both reports, the page; and its next step."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from hsi_se.config.yaml_file import load_config
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.train import train
from tests.conftest import CPU, ROOT

SETTINGS = (
    "split={kind: blocks, train: 0.3, block_size: 8, buffer: 9}",
    "reduction={kind: pca, components: 13, fit_on: train}",
    "patch.size=9",
    "train={epochs: 1, batch_size: 64, learning_rate: 1e-6}",
    "prediction={}",
)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """A run on blocks whose network has learned next to nothing, and its scene."""
    folder = tmp_path_factory.mktemp("verdict")
    scene = make_synthetic_scene(seed=3, rows=64, cols=48, bands=24)
    np.save(folder / "cube.npy", scene.cube)
    np.save(folder / "labels.npy", scene.labels)
    files = f"scene={{cube: {folder / 'cube.npy'}, labels: {folder / 'labels.npy'}}}"
    config = load_config(ROOT / "configs" / "demo.yaml", [files, *SETTINGS])
    train(config, out=folder / "run", session=CPU)
    return folder / "run"


@pytest.fixture
def evaluated(untrained, call) -> tuple[RunFolder, str]:
    code, out, err = call("eval", untrained, "--device", "cpu")
    assert (code, "Traceback" in err) == (0, False)
    return RunFolder(untrained), out


def test_a_network_far_below_the_support_vector_machine_is_worse_wherever_the_verdict_is_shown(evaluated):
    folder, out = evaluated
    report = json.loads(folder.report.read_text())
    found = report["against_spectral_baseline"]
    baseline = report["spectral_baseline"]["overall_accuracy"]
    assert baseline - report["overall_accuracy"] > 0.3
    assert found["outcome"] == "worse"
    assert found["difference"] == pytest.approx(report["overall_accuracy"] - baseline)
    assert found["unit"] == "test blocks of 8 × 8 pixels"
    assert found["num_units"] >= 6
    sentence = f"The network is worse than the spectral baseline: {100 * report['overall_accuracy']:.2f} % against"
    for text in (out, report["verdict"], folder.report_text.read_text(), folder.page.read_text()):
        assert sentence in text
    if report["against_location_floor"]["outcome"] != "worse":
        assert "Row and column alone" not in report["verdict"]
    assert '<p class="verdict failed">' in folder.page.read_text()
    assert "<code>hsi-se train CONFIG --set &#34;model={name: svm}&#34;</code>" in folder.page.read_text()


def test_the_next_step_on_the_terminal_trains_the_baseline_that_was_better(evaluated, call, tmp_path):
    folder, out = evaluated
    (line,) = [line for line in out.splitlines() if line.startswith("next: ")]
    (command,) = re.findall("`hsi-se (.*)`", line)
    words = shlex.split(command)
    assert words[:2] == ["train", str(folder.config)]
    assert call(*words, "--out", tmp_path / "svm")[0] == 0
    code, out, _ = call("eval", tmp_path / "svm")
    assert code == 0
    report, before = RunFolder(tmp_path / "svm").read_report(), folder.read_report()
    baseline = before.spectral_baseline.overall_accuracy  # scikit-learn breaks ties by the class, not by distance
    assert report.overall_accuracy == pytest.approx(baseline, abs=0.02)
    assert report.against_spectral_baseline is None
    assert "The spectral baseline is the same support vector machine, so the two are not compared" in out
