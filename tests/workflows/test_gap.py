"""The same config on a random split and on blocks with as many training pixels of each class."""

import numpy as np
import pytest

from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, RunError
from hsi_se.runs.folder import RunFolder
from hsi_se.workflows.gap import measure_gap
from tests.conftest import CPU, ROOT, TINY


def tiny(*overrides: str):
    return load_config(ROOT / "configs" / "demo.yaml", [*TINY, "train.epochs=1", *overrides])


@pytest.mark.slow
def test_the_gap_compares_as_many_training_pixels_of_each_class(tmp_path, monkeypatch):
    # Buffer 4, smaller than the patch: the tiny scene has no room for more.
    config = tiny("split={kind: blocks, train: 0.2, block_size: 5, buffer: 4}")
    monkeypatch.chdir(tmp_path)
    gap = measure_gap(config, session=CPU)
    random, blocks = gap.random.audit.counts, gap.blocks.audit.counts
    assert np.array_equal(random[:, :2].sum(axis=1), blocks[:, :2].sum(axis=1))
    assert blocks[:, 3].sum() > 0
    assert gap.optimism == gap.random.evaluation.overall_accuracy - gap.blocks.evaluation.overall_accuracy
    assert gap.folder.resolve() == tmp_path / "runs" / f"gap-demo-{config.digest[:8]}", "on any day"
    assert RunFolder.open(gap.folder / "random").read_config().split.kind == "random"


@pytest.mark.slow
def test_the_gap_takes_the_share_of_a_random_split_and_keeps_its_runs_to_itself(tmp_path):
    config = tiny("split={kind: random, train: 0.1}", "scene={synthetic: 0, rows: 48, cols: 48, bands: 16}")
    gap = measure_gap(config, out=tmp_path / "gap", session=CPU)
    split = RunFolder.open(tmp_path / "gap" / "blocks").read_config().split
    assert (split.kind, split.train, split.buffer) == ("blocks", 0.1, 9)
    assert gap.blocks.audit.leakage.test_patches_with_train_pixels == 0
    assert gap.random.audit.leakage.test_patches_with_train_pixels > 0.5
    other = config.model_copy(update={"seed": 1})
    with pytest.raises(RunError, match=r"random: contains a run with other settings; choose another folder"):
        measure_gap(other, out=tmp_path / "gap", session=CPU)


def test_a_split_without_a_share_has_no_gap():
    with pytest.raises(ConfigError, match="has no training share that blocks could use"):
        measure_gap(tiny("split={kind: random, train: {per_class: 2}}"))


def test_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(ConfigError, match="gap: torchrun runs one training in several processes"):
        measure_gap(tiny())
