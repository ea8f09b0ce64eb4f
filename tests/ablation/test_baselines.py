"""The baselines of a split are fitted once for all variants, with the numbers each run would have found."""

import json
import shutil
from collections import Counter

import pytest

from hsi_se.ablation import run as runner
from hsi_se.ablation.file import load_ablation
from hsi_se.ablation.record import AblationFolder
from hsi_se.config.model import Lda, Svm
from hsi_se.evaluation import baselines
from hsi_se.system.memory import fixed_threads
from hsi_se.workflows.evaluate import assess_run
from tests.ablation.conftest import FILE, Log
from tests.conftest import CPU

RUNS = [(variant, seed) for variant in ("none", "se", "eca") for seed in (0, 1)]
THREE = FILE.replace("epochs: 2", "epochs: 1") + "  eca:  {model.attention: {fold: {kind: eca}}}\n"


@pytest.fixture
def count(monkeypatch):
    """Counts what is chosen in this process."""
    chosen = []
    hold_out = baselines.hold_out

    def counted(*args: object, **options: object):
        chosen.append(options["seed"])
        return hold_out(*args, **options)

    monkeypatch.setattr(baselines, "hold_out", counted)
    return chosen


@pytest.fixture
def few(monkeypatch):
    """Few candidates, where it does not matter which one is chosen."""
    monkeypatch.setattr(baselines, "_CANDIDATES", (Svm(name="svm"), Lda(name="lda")))
    monkeypatch.setattr(baselines, "_GRID", ((10.0, 100.0), (1.0,)))


def load(tmp_path, text: str = THREE):
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return load_ablation(path)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("few")
def test_each_seed_is_tuned_once_and_every_run_has_its_own_numbers(count, tmp_path):
    folder, report = runner.run_ablation(load(tmp_path), out=tmp_path / "out", session=CPU, watcher=Log())
    assert count == [0, 1]
    assert (report.failed, report.num_missing) == ((), 0)
    names = Counter(folder.run_of(*key).read_report().spectral_baseline.chosen.name for key in RUNS)
    (note,) = [note for note in report.scenes[0].notes if note.startswith("the spectral baseline is ")]
    assert note == "the spectral baseline is " + ", ".join(f"{name} ({count} runs)" for name, count in names.items())
    assert note in folder.report_text.read_text()
    assert note in folder.page.read_text()
    for variant in ("none", "eca"):
        run = folder.run_of(variant, 1)
        before = run.report.read_bytes()
        with fixed_threads(1):
            assess_run(run, session=CPU)  # which fits them anew
        assert run.report.read_bytes() == before
    assert count == [0, 1, 1, 1]

    # Resumed, with a further variant: nothing is fitted again.
    more = THREE + "  cbam: {model.attention: {fold: {kind: cbam}}}\n"
    folder.run_of("se", 0).report.unlink()
    log = Log()
    runner.run_ablation(load(tmp_path, more), out=folder.path, session=CPU, watcher=log)
    assert len(log.seeds("running")) == 3
    assert count == [0, 1, 1, 1]


@pytest.mark.usefixtures("few")
def test_another_reduction_has_baselines_of_its_own(count, tmp_path):
    text = FILE.replace("seeds: 0-1", "seeds: 3").replace("epochs: 2", "epochs: 1")
    text += "  more: {reduction.components: 14}\n  wide: {reduction.components: 14, model.width: 0.5}\n"
    _, report = runner.run_ablation(load(tmp_path, text), out=tmp_path / "out", session=CPU, watcher=Log())
    assert count == [3, 3]
    spectral = [variant.runs[0].spectral_baseline for variant in report.scenes[0].variants]
    assert spectral[0] == spectral[1]
    assert spectral[2] == spectral[3]


def test_baselines_of_another_split_are_not_used(count, finished, tmp_path):
    """As when the scene's files have changed since."""
    out = shutil.copytree(finished.path, tmp_path / "out")
    folder = AblationFolder(out)
    run = folder.run_of("se", 0)
    before = json.loads(run.report.read_text())
    run.report.unlink()
    for path in folder.baselines.iterdir():
        values = json.loads(path.read_text())
        wrong = [1] * len(values["labels"])
        path.write_text(json.dumps({**values, "split_digest": "other", "labels": wrong}))
    runner.run_ablation(load(tmp_path, FILE), out=out, session=CPU, watcher=Log())
    assert json.loads(run.report.read_text()) == before
    assert len(count) == 1


@pytest.mark.exhaustive
@pytest.mark.usefixtures("few")
def test_on_a_cluster_too_each_seed_is_tuned_once(count, tmp_path):
    distributed = pytest.importorskip("distributed")
    here = {"processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **here) as cluster:
        address = cluster.scheduler_address
        folder, report = runner.run_ablation(
            load(tmp_path), out=tmp_path / "out", scheduler=address, session=CPU, watcher=Log()
        )
        assert (report.failed, report.num_missing) == ((), 0)
        assert sorted(count) == [0, 1]
        assert len(list(folder.baselines.iterdir())) == 2
