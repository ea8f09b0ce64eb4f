"""The same config on a random split and on blocks with as many training pixels of each class."""

import numpy as np
import pytest

from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, RunError
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.workflows.gap import _to_folds, measure_gap
from tests.conftest import CPU, ROOT, TINY

pytestmark = pytest.mark.usefixtures("quick_baseline")


def tiny(*overrides: str):
    return load_config(ROOT / "configs" / "demo.yaml", [*TINY, "train.epochs=1", *overrides])


@pytest.fixture(scope="module")
def gap(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gap")
    config = tiny("split={kind: folds, by: blocks, folds: 3, block_size: 6}", "model={name: svm}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = measure_gap(config, session=CPU)
    return config, folder, found


def test_the_gap_compares_as_many_training_pixels_of_each_class_as_the_folds_have_on_average(gap):
    config, folder, found = gap
    of_folds = [RunFolder(folder / found.folder / "folds").fold(number).read_split() for number in (1, 2, 3)]
    labels = make_synthetic_scene(seed=0, rows=24, cols=24, bands=16).labels
    counts = [np.bincount(labels[tuple(split.training_side.T)], minlength=10) for split in of_folds]
    expected = [round(mean) for mean in np.mean(counts, axis=0)[1:]]
    assert found.random.audit.counts[:, :2].sum(axis=1).tolist() == expected
    assert found.folds.evaluation.num_test == (labels > 0).sum()
    assert found.folds.audit.leakage.test_patches_with_train_pixels == 0
    assert found.random.audit.leakage.test_patches_with_train_pixels > 0.5
    assert found.optimism == found.random.evaluation.overall_accuracy - found.folds.evaluation.overall_accuracy
    assert found.folder.as_posix() == f"runs/gap-demo-{config.digest[:8]}", "on any day"
    assert RunFolder.open(folder / found.folder / "random").read_config().split.kind == "random"


def test_a_measured_gap_is_not_trained_again_and_keeps_its_runs_to_itself(gap):
    config, folder, found = gap
    again = measure_gap(config, out=folder / found.folder, session=CPU)
    assert again.optimism == found.optimism
    other = config.model_copy(update={"seed": 1})
    with pytest.raises(RunError, match=r"random: contains a run with other settings; choose another folder"):
        measure_gap(other, out=folder / found.folder, session=CPU)


@pytest.mark.parametrize(
    ("split", "by", "block_size"),
    [
        ("{kind: random, train: 0.1}", "blocks", 16),
        ("{kind: random, train: {per_class: 2}}", "blocks", 16),
        ("{kind: blocks, train: 0.1, block_size: 7}", "blocks", 7),
        ("{kind: fields, train: 0.1}", "fields", 16),
        ("{kind: masks, partition: a.mat}", "blocks", 16),
        ("{kind: folds, by: fields, folds: 4, fold: 2, buffer: 3}", "fields", 16),
        ("{kind: all}", "blocks", 16),
    ],
)
def test_every_split_has_folds_for_its_gap(split, by, block_size):
    config = tiny(f"split={split}")
    folds = _to_folds(config)
    assert (folds.by, folds.block_size) == (by, block_size)
    assert folds.buffer == (3 if "buffer" in split else 5), "half the patch of 9, and one"
    assert config.model_copy(update={"split": folds}).with_fold(None).list_folds()[-1].split.fold == folds.folds


def test_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(ConfigError, match="gap: torchrun runs one training in several processes"):
        measure_gap(tiny())
