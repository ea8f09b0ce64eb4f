"""What a user reads on the terminal are our own sentences, whatever the classes are named."""

import re

import numpy as np
import pytest
import scipy.io

from hsi_se.scene.synthetic import make_synthetic_scene

NAMES = ("玉米", "قمح", "\N{EAR OF MAIZE} corn", "$x_1", "été")
CONFIG = """\
scene: {{cube: 影像 一.npy, labels: 标签.mat, class_names: [{names}]}}
split: {{kind: random, train: 0.2, validation: 0.1}}
reduction: {{kind: pca, components: 13, fit_on: train}}
patch: {{size: 9}}
model: {{name: hybridsn, width: 0.25, attention: {{fold: {{kind: se}}}}}}
train: {{epochs: 1, batch_size: 64}}
"""
ABLATION = """\
base: 训练.yaml
seeds: [0, 1]
variants:
  基线: {{}}
  دون: {{model.attention: {{}}}}
""".replace("{{", "{").replace("}}", "}")

COMMANDS = (
    ("scene", "inspect", "影像 一.npy", "标签.mat", "--set", "scene.class_names=[{names}]"),
    ("split", "训练.yaml", "--out", "split.png"),
    ("train", "训练.yaml", "--out", "run"),
    ("eval", "run"),
    ("explain", "run"),
    ("map", "run", "--out", "map"),
    ("report", "run", "--figures", "png"),
    ("ablate", "消融.yaml", "--out", "ablation"),
    ("report", "ablation", "--figures", "png"),
)
# A carriage return or a new line begins each of these; `training 50 %` is a line of progress.
OURS = re.compile(r"(note: |\d+/\d+  |hsi-se: |training|mapping|fitting|calibration|explaining|\s|$)")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    scene = make_synthetic_scene(seed=0, rows=32, cols=28, bands=16)
    labels = np.where(scene.labels > len(NAMES), 0, scene.labels)
    np.save(folder / "影像 一.npy", scene.cube)
    scipy.io.savemat(folder / "标签.mat", {"labels": labels})
    names = ", ".join(f"'{name}'" for name in NAMES[: labels.max()])
    (folder / "训练.yaml").write_text(CONFIG.format(names=names), encoding="utf-8")
    (folder / "消融.yaml").write_text(ABLATION, encoding="utf-8")
    return folder, names


@pytest.mark.slow
def test_no_other_library_speaks_on_the_terminal(project, call, monkeypatch):
    folder, names = project
    monkeypatch.chdir(folder)
    for command in COMMANDS:  # a warning would be an error here
        code, _, error = call(*(word.format(names=names) for word in command))
        assert code == 0, (command, error)
        foreign = [line for line in re.split(r"[\r\n]+", error) if not OURS.match(line)]
        assert foreign == [], command
