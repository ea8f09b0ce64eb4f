"""Several runs of one config: over seeds, and random against blocks."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from hsi_se.config.base import parse_seeds
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, RunError
from hsi_se.progress import Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.series import SeriesFolder
from hsi_se.system.session import Session
from hsi_se.workflows import series
from tests.conftest import CPU, ROOT, TINY


def tiny(*overrides: str):
    return load_config(ROOT / "configs" / "demo.yaml", [*TINY, "train.epochs=1", *overrides])


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-3", [0, 1, 2, 3]), ("7", [7]), ("3,1,2", [3, 1, 2]), ("0-2,2,5", [0, 1, 2, 5]), ("4-4", [4])],
)
def test_seeds_are_read_as_they_are_written(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "0-99999", "1.5"])
def test_what_is_no_list_of_seeds_is_refused(text):
    with pytest.raises(ConfigError, match=re.escape(f"--seeds {text}: ")):
        parse_seeds(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> SeriesFolder:
    return series.train_series(tiny(), [0, 1, 2], out=tmp_path_factory.mktemp("runs") / "seeds", session=CPU)


@pytest.fixture(scope="module", name="report")
def _report(folder):
    return series.evaluate_series(folder)


def test_the_summary_is_the_mean_and_the_interval_over_the_runs_own_reports(folder, report):
    accuracies = [json.loads(run.report.read_text())["overall_accuracy"] for run in folder.list_runs()]
    found = report.summaries["overall_accuracy"]
    assert found.n == 3
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.std == pytest.approx(np.std(accuracies, ddof=1))
    low, high = stats.t.interval(0.95, 2, loc=np.mean(accuracies), scale=stats.sem(accuracies))
    assert (found.low, found.high) == pytest.approx((max(low, 0), min(high, 1)))
    values = json.loads(folder.report.read_text())
    assert values["overall_accuracy"]["mean"] == pytest.approx(found.mean)
    assert values["location_floor.overall_accuracy"]["n"] == 3
    assert values["seeds"] == [0, 1, 2]
    assert len(values["per_class"]) == 9


@pytest.mark.usefixtures("report")
def test_no_interval_leaves_what_its_numbers_can_be(folder):
    values = json.loads(folder.report.read_text())
    parts = {name: value for name, value in values.items() if isinstance(value, dict)}
    rows = [*parts.items(), *((row["name"], row["producers_accuracy"]) for row in values["per_class"])]
    for name, part in rows:
        if part["low"] is not None:
            assert part["low"] >= (-1 if name.endswith("kappa") else 0), name
            assert part["high"] <= 1, name
    for low, high in re.findall(r"\[(-?[\d.]+), (-?[\d.]+)\]", folder.report_text.read_text()):
        assert -100 <= float(low) <= float(high) <= 100


@pytest.mark.usefixtures("report")
def test_the_summary_says_that_every_seed_has_its_own_split(folder):
    digests = {run.read_record().split_digest for run in folder.list_runs()}
    assert len(digests) == 3
    assert "Every seed has its own split" in folder.report_text.read_text()


@pytest.mark.slow
def test_a_fixed_split_seed_gives_all_runs_one_split_and_the_summary_says_so(tmp_path):
    folder = series.train_series(tiny("split.seed=4"), [0, 1], out=tmp_path / "seeds", session=CPU)
    assert len({run.read_record().split_digest for run in folder.list_runs()}) == 1
    assert "All seeds share one split" in series.evaluate_series(folder).about_splits


def test_a_series_goes_on_where_it_stopped(folder):
    class Notes(Silent):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    before = [run.bundle_arrays.stat().st_mtime_ns for run in folder.list_runs()]
    observer = Notes()
    series.train_series(tiny(), [0, 1, 2], out=folder.path, session=Session(device="cpu", observer=observer))
    assert [run.bundle_arrays.stat().st_mtime_ns for run in folder.list_runs()] == before
    assert observer.notes[1::2] == [f"{run} is finished" for run in folder.list_runs()]


def test_a_seed_that_another_process_is_at_is_left_to_it(tmp_path):
    folder = SeriesFolder(tmp_path / "seeds")
    with folder.hold_seed(1):
        series.train_series(tiny(), [0, 1, 2], out=folder.path, session=CPU)
    assert [run.path.name for run in folder.list_runs()] == ["seed-0", "seed-2"]
    series.train_series(tiny(), [0, 1, 2], out=folder.path, session=CPU)
    assert len(folder.list_runs()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("what", ["seeds", "gap"])
def test_what_goes_on_by_itself_lies_in_the_same_folder_on_any_day(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny("split={kind: blocks, train: 0.2, block_size: 5, buffer: 4}")
    folder = tmp_path / "runs" / f"{what}-demo-{config.digest[:8]}"
    if what == "seeds":
        assert series.train_series(config, [0], session=CPU).path.resolve() == folder
    else:
        assert series.measure_gap(config, session=CPU).folder.resolve() == folder


def test_another_configs_runs_are_not_taken_for_finished(folder):
    with pytest.raises(RunError, match=r"seed-0: holds a run of other settings; name another folder"):
        series.train_series(tiny("train.batch_size=17"), [0], out=folder.path, session=CPU)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is no series of runs"):
        series.train_series(tiny(), [0], out=tmp_path, session=CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_the_gap_compares_as_many_training_pixels_of_each_class(tmp_path):
    # Buffer 4, smaller than the patch: the tiny scene has no room for more.
    config = tiny("split={kind: blocks, train: 0.2, block_size: 5, buffer: 4}")
    gap = series.measure_gap(config, out=tmp_path / "gap", session=CPU)
    random, blocks = gap.random.audit.counts, gap.blocks.audit.counts
    assert np.array_equal(random[:, :2].sum(axis=1), blocks[:, :2].sum(axis=1))
    assert blocks[:, 3].sum() > 0
    assert gap.optimism == gap.random.evaluation.overall_accuracy - gap.blocks.evaluation.overall_accuracy
    assert RunFolder.open(tmp_path / "gap" / "random").read_config().split.kind == "random"


@pytest.mark.slow
def test_the_gap_takes_the_share_of_a_random_split(tmp_path):
    config = tiny("split={kind: random, train: 0.1}", "scene={synthetic: 0, rows: 48, cols: 48, bands: 16}")
    gap = series.measure_gap(config, out=tmp_path / "gap", session=CPU)
    split = RunFolder.open(tmp_path / "gap" / "blocks").read_config().split
    assert (split.kind, split.train, split.buffer) == ("blocks", 0.1, 9)
    assert gap.blocks.audit.leakage.test_patches_with_train_pixels == 0
    assert gap.random.audit.leakage.test_patches_with_train_pixels > 0.5


def test_a_split_without_a_share_has_no_gap():
    with pytest.raises(ConfigError, match="has no share to divide blocks by"):
        series.measure_gap(tiny("split={kind: random, train: {per_class: 2}}"))
