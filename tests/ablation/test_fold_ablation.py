"""Ablations over folds: variants are paired by draw."""

import pytest

from hsi_se.ablation import run as runner
from hsi_se.ablation.file import load_ablation
from hsi_se.ablation.record import AblationFolder
from hsi_se.errors import ConfigError
from hsi_se.runs.folder import RunFolder
from tests.ablation.conftest import DEMO, LABELS, Log
from tests.conftest import CPU, TINY

ABLATION = f"""
base: {DEMO}
seeds: 0-1
set: {{{", ".join(text.replace("=", ": ", 1) for text in (*TINY, "train.epochs=1"))},
       split: {{kind: folds, by: blocks, folds: 3, block_size: 6, buffer: 2}}}}
variants:
  one: {{model: {{name: svm, penalty: 1}}}}
  two: {{model: {{name: svm, penalty: 100, gamma: 0.1}}}}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "folds.yaml"
    path.write_text(ABLATION)
    return path


@pytest.fixture(scope="module")
def compared(file, tmp_path_factory) -> AblationFolder:
    out = tmp_path_factory.mktemp("ablation") / "out"
    return runner.run_ablation(load_ablation(file), out=out, session=CPU, watcher=Log())[0]


def test_an_ablation_pairs_its_variants_by_draw(compared):
    one, two = compared.read_report().scenes[0].variants
    assert [run.seed for run in two.runs] == [0, 1]
    for before, after in zip(one.runs, two.runs, strict=True):
        assert before.split_digest == after.split_digest
        assert before.num_test == (LABELS > 0).sum()
        assert after.difference == pytest.approx(after.overall_accuracy - before.overall_accuracy)
        correct = [compared.open_run(run.folder).read_correct() for run in (before, after)]
        assert after.mcnemar.only_variant == (correct[1] & ~correct[0]).sum()
        assert before.spectral_baseline == after.spectral_baseline
    assert len(list(compared.baselines.glob("*.json"))) == 6, "one for each fold of each draw"


@pytest.mark.exhaustive
def test_workers_compute_what_one_process_does(compared, file, tmp_path):
    distributed = pytest.importorskip("distributed")
    here = {"processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **here) as cluster:
        folder, report = runner.run_ablation(
            load_ablation(file), out=tmp_path / "out", session=CPU, scheduler=cluster.scheduler_address, watcher=Log()
        )
    assert not report.failed
    for run in (run for variant in report.scenes[0].variants for run in variant.runs):
        for name in ("predictions", "explorer"):
            ours, theirs = (
                getattr(RunFolder(each.path / run.folder), name).read_bytes() for each in (folder, compared)
            )
            assert ours == theirs
        assert len(RunFolder(folder.path / run.folder).folds) == 3


def test_repeats_in_an_ablation_are_refused(tmp_path):
    other = tmp_path / "folds.yaml"
    other.write_text(ABLATION.replace("folds: 3", "folds: 3, repeats: 3"))
    with pytest.raises(ConfigError, match=r"split.repeats: has no effect in an ablation; write one seed for each draw"):
        load_ablation(other)


def test_a_dry_run_counts_the_folds_in_the_time(file, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("ablate", file, "--dry-run")
    assert code == 0
    assert "4 runs" in out
