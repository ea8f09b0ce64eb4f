"""One config over several seeds: an ablation of one variant, with the numbers of single runs."""

import csv
import io
import json
import re
import shutil
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats

from hsi_se.ablation import run as runner
from hsi_se.ablation.file import PlannedRun, repeat_over_seeds
from hsi_se.ablation.record import AblationFolder
from hsi_se.config.base import parse_seeds
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, Interrupted, RunError
from hsi_se.progress import Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.system.memory import fixed_threads
from hsi_se.workflows.evaluate import assess_run
from hsi_se.workflows.train import train
from tests.ablation.conftest import Log, make_tiny
from tests.conftest import CPU, ROOT, TINY


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("7", [7]), ("3,1,2", [3, 1, 2]), ("0-2,5", [0, 1, 2, 5]), ("4-4", [4])]
)
def test_seeds_are_read_as_they_are_written(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "0-99999", "1.5", "0-2,2", "1,1"])
def test_what_is_no_list_of_seeds_is_refused(text):
    with pytest.raises(ConfigError, match=re.escape(f"--seeds {text}: ")):
        parse_seeds(text)


def list_runs(folder: AblationFolder) -> list[RunFolder]:
    return [folder.run_of("demo", seed) for seed in (0, 1, 2)]


def test_each_seeds_run_has_the_numbers_of_a_single_run_to_the_bit(over_seeds, tmp_path):
    with fixed_threads(1):
        alone = train(make_tiny("seed=1"), out=tmp_path / "alone", session=CPU)
        assess_run(alone, session=CPU)
    run = over_seeds.run_of("demo", 1)
    for name in ("bundle_arrays", "split", "predictions"):
        assert getattr(run, name).read_bytes() == getattr(alone, name).read_bytes(), name
    ours, theirs = (json.loads(each.report.read_text()) for each in (run, alone))
    assert {**ours, "training_s": 0} == {**theirs, "training_s": 0}


def test_the_summary_is_the_mean_and_the_interval_over_the_runs_own_reports(over_seeds):
    reports = [json.loads(run.report.read_text()) for run in list_runs(over_seeds)]
    variant = over_seeds.read_report().scenes[0].variants[0]
    for name in ("overall_accuracy", "unsmoothed.average_accuracy", "location_floor.kappa",
                 "spectral_baseline.overall_accuracy", "leakage.test_patches_with_train_pixels"):  # fmt: skip
        values = []
        for report in reports:
            value = report
            for part in name.split("."):
                value = value[part]
            values.append(value)
        found = variant.summaries[name.removeprefix("leakage.")]
        assert found.n == 3
        assert found.mean == pytest.approx(np.mean(values))
        assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values) or 1e-12)
        least = -1 if name.endswith("kappa") else 0
        assert (found.low, found.high) == pytest.approx((max(low, least), min(high, 1)), abs=1e-9)


def test_every_class_has_the_mean_and_interval_of_its_producers_accuracy(over_seeds):
    reports = [json.loads(run.report.read_text()) for run in list_runs(over_seeds)]
    scene = over_seeds.read_report().scenes[0]
    assert len(scene.class_names) == 9
    for place, (label, name) in enumerate(scene.class_names.items()):
        rows = [report["per_class"][place] for report in reports]
        assert {(row["label"], row["name"]) for row in rows} == {(label, name)}
        values = [row["producers_accuracy"] for row in rows if row["producers_accuracy"] is not None]
        found = scene.variants[0].producers_accuracy[label]
        assert found.n == len(values)
        assert found.mean == pytest.approx(np.mean(values))
        text = f"| {label} | {name} | {100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"
        assert text in over_seeds.report_text.read_text()
    rows = list(csv.DictReader(io.StringIO(over_seeds.table.read_text())))
    found = [float(row["producers_accuracy.1"]) for row in rows]
    assert found == [report["per_class"][0]["producers_accuracy"] for report in reports]


def test_no_interval_leaves_what_its_numbers_can_be(over_seeds):
    variant = over_seeds.read_report().scenes[0].variants[0]
    for name, summary in [*variant.summaries.items(), *variant.producers_accuracy.items()]:
        if summary.low is not None:
            assert summary.low >= (-1 if str(name).endswith("kappa") else 0), name
            assert summary.high <= 1 or "_us_" in name or "_bytes" in name, name
    texts = over_seeds.report_text.read_text(), over_seeds.page.read_text()
    found = [ends for text in texts for ends in re.findall(r"\[(-?[\d.]+), (-?[\d.]+)\]", text)]
    assert len(found) > 2 * 12
    for low, high in found:
        assert -100 <= float(low) <= float(high) <= 100


def test_the_report_says_that_every_seed_has_its_own_split_and_what_it_leaks(over_seeds):
    digests = {run.read_record().split_digest for run in list_runs(over_seeds)}
    assert len(digests) == 3
    text = over_seeds.report_text.read_text()
    assert "Every seed has its own split" in text
    assert "100.00 % of the test patches contain training pixels." in text


def test_a_fixed_split_seed_gives_all_runs_one_split_and_the_report_says_so(tmp_path):
    ablation = repeat_over_seeds(make_tiny("split.seed=4"), [0, 1])
    folder, report = runner.run_ablation(ablation, out=tmp_path / "out", session=CPU, watcher=Log())
    assert len({folder.run_of("demo", seed).read_record().split_digest for seed in (0, 1)}) == 1
    assert any("All seeds share one split" in note for note in report.scenes[0].notes)


def test_one_variant_has_no_comparison_and_no_empty_section_and_its_title_says_seeds(over_seeds):
    report = over_seeds.read_report()
    assert (report.friedman, report.no_friedman) == (None, "")
    assert len(report.caveats) == 3
    assert [*report.scenes[0].variants[0].against] == ["location floor", "spectral baseline"]
    page = re.sub(r"<(style|script|svg)\b.*?</\1>", "", over_seeds.page.read_text(), flags=re.S)
    page = re.sub(r'<ul class="answers">.*?</ul>', "", page, flags=re.S)  # against both references
    for text in (over_seeds.report_text.read_text(), over_seeds.latex.read_text(), page):
        text, num_against = re.subn(r"[^\n]*\b(against|with) the (location floor|spectral base)[^\n]*", "", text)
        assert num_against in (0, 3)  # two notes and what their test is; none in LaTeX
        assert not re.search(r"Holm|McNemar|Friedman|difference|(?<!spectral )baseline|Over scenes", text)
        assert "spectral baseline" in text
    assert over_seeds.report_text.read_text().startswith("# demo on synthetic farmland, seed 0: 3 seeds (0, 1, 2)\n")
    assert "<h1>demo <span>on synthetic farmland, seed 0, 3 seeds</span></h1>" in page
    assert "mcnemar" not in over_seeds.table.read_text()
    assert "difference" not in over_seeds.table.read_text()


def test_finished_seeds_are_kept_and_added_ones_are_run(over_seeds, tmp_path):
    out = shutil.copytree(over_seeds.path, tmp_path / "out")
    folder = AblationFolder(out)
    before = [run.bundle_arrays.stat().st_mtime_ns for run in list_runs(folder)]
    log = Log()
    runner.run_ablation(repeat_over_seeds(make_tiny(), [0, 1, 2, 3]), out=out, session=CPU, watcher=log)
    assert [run.bundle_arrays.stat().st_mtime_ns for run in list_runs(folder)] == before
    assert log.seeds("running") == [3]
    assert log.seeds("finished") == [0, 1, 2, 3]


def test_a_seed_that_another_process_is_at_comes_last(over_seeds, tmp_path):
    out = shutil.copytree(over_seeds.path, tmp_path / "out")
    for seed in (0, 1, 2):
        (out / "runs" / "demo" / f"seed-{seed}" / "report.json").unlink()
    folder = AblationFolder(out)
    with ExitStack() as claim:
        claim.enter_context(folder.hold(folder.run_of("demo", 1).path, "at this run"))

        class Releasing(Log):
            def change(self, run: PlannedRun, state: str, *, accuracy: float | None = None) -> None:
                super().change(run, state, accuracy=accuracy)
                if len(self.seeds("finished")) == 2:
                    claim.close()

        log = Releasing()
        runner.run_ablation(repeat_over_seeds(make_tiny(), [0, 1, 2]), out=out, session=CPU, watcher=log)
    assert log.seeds("elsewhere") == [1]
    assert log.seeds("running") == [0, 2, 1]


@pytest.mark.exhaustive
def test_an_interrupted_run_is_resumed_by_the_same_command(tmp_path, monkeypatch):
    config = make_tiny("train={epochs: 3, batch_size: 16, checkpoint_every_s: 0}")
    whole, _ = runner.run_ablation(
        repeat_over_seeds(config, [0, 1]), out=tmp_path / "whole", session=CPU, watcher=Log()
    )
    torn = AblationFolder(tmp_path / "torn")
    notes = []

    class Impatient(Silent):
        def advance(self, _count: int) -> None:
            if len(notes) < 2 and any((torn.run_of("demo", 1).checkpoints).glob("*")):
                raise KeyboardInterrupt

        def note(self, text: str) -> None:
            notes.append(text)

    finish = runner.train_unless_finished
    monkeypatch.setattr(
        runner,
        "train_unless_finished",
        lambda config, path, session: finish(config, path, session=replace(session, observer=Impatient())),
    )

    def start() -> None:
        runner.run_ablation(repeat_over_seeds(config, [0, 1]), out=torn.path, session=CPU, watcher=Log())

    for _ in range(2):  # interrupted in its second run, and again
        with pytest.raises(Interrupted, match=r"seed-1"):
            start()
        assert torn.read_report().num_missing == 1
    start()
    assert notes[-1] == f"{torn.run_of('demo', 1)}: resuming"
    for seed in (0, 1):
        ours, theirs = (load_file(each.run_of("demo", seed).bundle_arrays) for each in (torn, whole))
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_resumed_lies_in_the_same_folder_on_any_day_and_with_any_seeds():
    config = load_config(ROOT / "configs" / "demo.yaml", TINY)
    folders = {
        str(runner.find_folder(repeat_over_seeds(each, seeds), None))
        for each in (config, config.model_copy(update={"seed": 5}))
        for seeds in ([0], [3, 4])
    }
    (folder,) = folders
    assert re.fullmatch(r"runs/seeds-demo-[0-9a-f]{8}", folder)
    assert str(runner.find_folder(repeat_over_seeds(make_tiny(), [0]), None)) != folder


@pytest.mark.parametrize(("name", "variant"), [("", "run"), ("..", "run"), (".x-1", "x-1"), ("é+b", "é+b")])
def test_the_variant_has_the_configs_name_and_lies_below_the_folder(name, variant):
    ablation = repeat_over_seeds(make_tiny().model_copy(update={"name": name}), [0])
    assert list(ablation.variants) == [variant]
    assert str(runner.find_folder(ablation, "out").run_of(variant, 0)) == f"out/runs/{variant}/seed-0"


def test_another_configs_runs_are_not_taken_for_finished(over_seeds):
    before = over_seeds.report.read_bytes()
    with pytest.raises(RunError, match=r"contains another ablation \(demo, .*choose another folder"):
        runner.run_ablation(
            repeat_over_seeds(make_tiny("train.batch_size=17"), [0]), out=over_seeds.path, session=CPU, watcher=Log()
        )
    assert over_seeds.report.read_bytes() == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="already exists but is not an ablation folder"):
        runner.run_ablation(repeat_over_seeds(make_tiny(), [0]), out=tmp_path, session=CPU, watcher=Log())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_torchrun_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(ConfigError, match="torchrun: runs one training in several processes"):
        runner.run_ablation(repeat_over_seeds(make_tiny(), [0]), out=tmp_path, session=CPU, watcher=Log())
    assert not list(tmp_path.iterdir())


def test_evaluating_the_folder_says_what_to_do_instead(over_seeds, call):
    code, out, err = call("eval", over_seeds.path)
    assert (code, out) == (2, "")
    assert err == (
        f"hsi-se: {over_seeds.path}: is an ablation, or a config over seeds: `hsi-se ablate` and "
        "`hsi-se train --seeds` evaluate each run themselves; show the results with "
        f"`hsi-se report {over_seeds.path}`\n"
    )
