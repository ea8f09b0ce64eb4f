"""A good config, as a file that tests change: what it is read as, and the line that refuses it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hsi_se.config.experiment import Config
from hsi_se.config.model import list_blocks, list_models
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError

GOOD = """\
seed: 3
scene: {synthetic: 0, rows: 24, cols: 25, bands: 16}
split: {kind: random, train: 0.1, validation: 0.2}
reduction: {kind: pca, components: 15, whiten: false, fit_on: train}
patch: {size: 11, padding: reflect}
model:
  name: hybridsn
  attention:
    fold: {kind: se, reduction: 8}
train:
  epochs: 40
  learning_rate: 1e-3
"""
SCENE = "{synthetic: 0, rows: 24, cols: 25, bands: 16}"
PCA = "{kind: pca, components: 15, whiten: false, fit_on: train}"
FILES = "scene={cube: a.mat, labels: b.mat}"
TRAIN_SETTINGS = (
    "epochs, start_from, batch_size, learning_rate, weight_decay, schedule, label_smoothing, flips, shift, noise, "
    "spectral_jitter, band_dropout, vary_by, precision, weight_averaging, norm_statistics, "
    "class_weights, early_stopping, max_minutes, checkpoint_every_s"
)
SECTIONS = "name, seed, scene, split, reduction, patch, model, train, prediction"
POINTS = "conv3d_1, conv3d_2, conv3d_3, fold, conv2d"
FRACTION = "a fraction must lie in (0, 1); write 0.1, or {per_class: 50} for counts"
SECTION = "should be a section; give its settings as a mapping, {…}"
TOO_SHALLOW = "spectral kernels 7, 5 and 3 deep need at least 13; keep more bands, or write model.order: 2d-3d"
OWN = "; for one of your own, add --plugin FILE"
KINDS = ", ".join(repr(block.kind) for block in list_blocks()) + OWN
MODELS = ", ".join(repr(name) for name in list_models()) + OWN
NO_BAND_AXIS = "'band' needs a 3-D point, and this one has no spectral axis; write axis: feature"

Load = Callable[..., Config]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "experiment.yaml"


@pytest.fixture
def load(path: Path) -> Load:
    """Loads a config from text, with overrides."""

    def load_text(text: str = GOOD, *overrides: str) -> Config:
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return load_text


@pytest.fixture
def refuse(load: Load) -> Callable[..., str]:
    """Returns the message with which a config is refused; it is one line."""

    def refuse_text(text: str = GOOD, *overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refuse_text


def change_good(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} is not once in the good config"
    return GOOD.replace(old, new)
