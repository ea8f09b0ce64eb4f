"""Spatial cross-validation as a series of runs: folds that are trained, pooled, repeated, resumed and compared."""

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats

from hsi_se.ablation import run as runner
from hsi_se.ablation.file import repeat_over_seeds
from hsi_se.ablation.record import AblationFolder
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, RunError
from hsi_se.progress import Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.workflows.evaluate import assess_run
from hsi_se.workflows.train import train
from tests.ablation.conftest import DEMO, LABELS, Log
from tests.conftest import CPU, TINY

pytestmark = pytest.mark.usefixtures("quick_baseline")
SPLIT = "split={kind: folds, by: blocks, folds: 3, block_size: 6, repeats: 2}"
SVM = (*TINY, "model={name: svm}", "prediction.smoothing={spatial: 1, range: 0.5}", SPLIT, "split.buffer=5")


def run_series(out, *, log=None):
    ablation = repeat_over_seeds(load_config(DEMO, SVM), [0, 1])
    return runner.run_ablation(ablation, out=out, session=CPU, watcher=log or Log())


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> AblationFolder:
    return run_series(tmp_path_factory.mktemp("folds") / "out")[0]


@pytest.fixture(scope="module")
def draw(series) -> RunFolder:
    return series.run_of("demo", 0)


def copy(series: AblationFolder, tmp_path) -> AblationFolder:
    return AblationFolder(shutil.copytree(series.path, tmp_path / "out"))


def test_the_pooled_report_counts_every_labelled_pixel_as_the_fold_that_tested_it(draw):
    pooled = draw.read_report()
    folds = [fold.read_report() for fold in draw.folds]
    assert len(folds) == 3
    assert pooled.num_test == (LABELS > 0).sum()
    np.testing.assert_array_equal(pooled.confusion_matrix, np.sum([fold.confusion_matrix for fold in folds], axis=0))
    columns = [load_file(fold.predictions) for fold in draw.folds]
    for name, column in (
        ("location_floor", "by_location"),
        ("spectral_baseline", "by_spectrum"),
        ("unsmoothed", "unsmoothed"),
    ):
        correct = np.concatenate([part[column] == part["truth"] for part in columns])
        assert getattr(pooled, name).overall_accuracy == pytest.approx(correct.mean())
        weights = [fold.num_test for fold in folds]
        of_folds = [getattr(fold, name).overall_accuracy for fold in folds]
        assert correct.mean() == pytest.approx(np.average(of_folds, weights=weights))
    assert list(pooled.fold_accuracies) == [fold.overall_accuracy for fold in folds]
    assert [row.num_test for row in pooled.folds] == [len(fold.read_split().test) for fold in draw.folds]
    assert pooled.num_train == pytest.approx(np.mean([fold.num_train for fold in folds]), abs=5)
    assert pooled.leakage.test_patches_with_train_pixels == pytest.approx(
        np.average([fold.leakage.test_patches_with_train_pixels for fold in folds], weights=weights)
    )


def test_the_interval_of_the_pooled_verdict_is_over_the_blocks_of_all_folds(draw):
    numbers = [fold.read_split().groups for fold in draw.folds]
    found = draw.read_report().against_location_floor
    assert (found.num_units, found.unit) == (len(np.unique(np.concatenate(numbers))), "test blocks of 6 × 6 pixels")
    assert found.num_units == sum(len(np.unique(each)) for each in numbers)
    assert draw.read_report().verdict.startswith("Pooled over 3 folds, which test every pixel once. The classifier is")


def test_the_map_shows_each_pixel_as_the_fold_that_tested_it_or_its_nearest_neighbour(draw):
    shown = load_file(draw.explorer)
    owner = np.full(LABELS.shape, -1)
    maps = []
    for number, fold in enumerate(draw.folds):
        owner[tuple(fold.read_split().test.T)] = number
        maps.append(load_file(fold.explorer))
    known = np.argwhere(owner >= 0)
    for name in ("prediction", "top_classes", "top_probabilities"):
        for row, col in np.ndindex(LABELS.shape):
            distance = np.hypot(*(known - (row, col)).T)
            near = {int(owner[tuple(pixel)]) for pixel in known[distance <= distance.min() + 1e-9]}
            assert any(np.array_equal(shown[name][row, col], maps[number][name][row, col]) for number in near)
    assert draw.map_figure.is_file()
    assert sum(row.mapped_pixels for row in draw.read_report().area) == LABELS.size


def test_a_class_that_a_fold_cannot_learn_is_named_and_counted(draw):
    lost = dict.fromkeys(np.unique(LABELS[LABELS > 0]).tolist(), 0)
    names = {row.label: row.name for row in draw.read_report().per_class}
    for row, fold in zip(draw.read_report().folds, draw.folds, strict=True):
        split, expected = fold.read_split(), {}
        tested, trained = LABELS[tuple(split.test.T)], LABELS[tuple(split.training_side.T)]
        for label in np.setdiff1d(tested, trained).tolist():
            expected[names[label]] = int((tested == label).sum())
            lost[label] += expected[names[label]]
        assert row.unlearnable == expected
    assert sum(lost.values()), "the tiny scene loses a class"
    which = ", ".join(f"{names[label]} ({count})" for label, count in lost.items() if count)
    sentence = f"in all, {sum(lost.values()):,} test pixels are of classes that their fold cannot learn: {which}"
    assert sentence in draw.read_report().notes
    assert sentence in draw.report_text.read_text()


def test_the_report_and_the_page_have_a_table_of_the_folds(draw, call):
    rows = draw.read_report().folds
    for number, row in enumerate(rows, start=1):
        assert f"| {number} | {row.num_train} | {row.num_val} | {row.num_test} |" in draw.report_text.read_text()
    page = draw.page.read_text()
    assert 'id="folds-title"' in page
    fold = draw.folds[0]
    assert not fold.page.exists(), "nobody asked for it yet"
    assert call("report", fold)[:2] == (0, f"report: {fold.page}\n")
    assert 'id="folds-title"' not in fold.page.read_text()
    fold.page.unlink()
    assert "## Folds" not in fold.report_text.read_text()


def test_the_draws_have_a_mean_and_an_interval(series, call):
    values = [series.run_of("demo", seed).read_report().overall_accuracy for seed in (0, 1)]
    found = series.read_report().scenes[0].variants[0].summaries["overall_accuracy"]
    low, high = stats.t.interval(0.95, 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), max(low, 0), min(high, 1)))
    said = "Every seed has its own split: the spread reflects both the choice of pixels and the training."
    assert said in series.read_report().scenes[0].notes
    before = series.report.read_bytes()
    code, out, _ = call("eval", series.path)
    assert code == 0
    each = ", ".join(f"{100 * value:.2f}" for value in values)
    assert re.search(
        rf"classifier|network: Overall accuracy over 2 draws of the folds: {100 * np.mean(values):.2f} ± ", out
    )
    assert f"({each})" in out
    assert out.index("buffer") < out.index("draws of the folds")
    assert series.report.read_bytes() == before


def test_the_first_draw_has_the_numbers_of_its_fold_alone(series, draw, tmp_path):
    config = load_config(DEMO, [*SVM, "split.repeats=1", "split.fold=2"])
    alone = train(config.without_calibration(), out=tmp_path / "alone", session=CPU)
    assess_run(alone, session=CPU)
    fold = draw.fold(2)
    for name in ("bundle_arrays", "split", "predictions"):
        assert getattr(fold, name).read_bytes() == getattr(alone, name).read_bytes(), name
    digests = {seed: series.run_of("demo", seed).fold(2).read_record().split_digest for seed in (0, 1)}
    assert digests[0] != digests[1]


def test_a_killed_series_trains_only_what_is_missing_and_ends_with_the_same_numbers(series, tmp_path, monkeypatch):
    folder, log = copy(series, tmp_path), Log()
    shutil.rmtree(folder.run_of("demo", 0).fold(2).path)
    folder.run_of("demo", 0).report.unlink()  # as if killed before fold 2 of the first draw
    folder.run_of("demo", 1).report.unlink()  # and while the second was pooled
    trained, train_one = [], runner.train_unless_finished
    monkeypatch.setattr(runner, "train_unless_finished", lambda *a, **k: trained.append(a[1]) or train_one(*a, **k))
    run_series(folder.path, log=log)
    assert trained == [folder.run_of("demo", 0).fold(2).path]
    for seed in (0, 1):
        for name in ("predictions", "explorer"):
            ours, theirs = (getattr(each.run_of("demo", seed), name).read_bytes() for each in (folder, series))
            assert ours == theirs


def test_an_interrupted_series_reports_what_is_pooled_and_goes_on(series, tmp_path, monkeypatch):
    assess, done = runner.assess_run, []

    def interrupt(path, **options):
        if len(done) == 5:  # three folds, their pooling and another fold
            raise KeyboardInterrupt
        done.append(path)
        return assess(path, **options)

    monkeypatch.setattr(runner, "assess_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_series(tmp_path / "out")
    report = AblationFolder(tmp_path / "out").read_report()
    assert (report.num_missing, len(report.scenes[0].variants[0].runs)) == (1, 1)
    monkeypatch.setattr(runner, "assess_run", assess)
    _, report = run_series(tmp_path / "out")
    accuracies = [run.overall_accuracy for run in report.scenes[0].variants[0].runs]
    assert accuracies == [run.overall_accuracy for run in series.read_report().scenes[0].variants[0].runs]


@pytest.mark.exhaustive
def test_a_fold_that_fails_is_named_and_its_draw_is_missing(tmp_path, monkeypatch):
    assess = runner.assess_run

    def fail(path, **options):
        if RunFolder(path).path.name == "fold-2" and RunFolder(path).path.parent.name == "seed-1":
            raise RunError("no")
        return assess(path, **options)

    monkeypatch.setattr(runner, "assess_run", fail)
    _, report = run_series(tmp_path / "out")
    assert [str(failure) for failure in report.failed] == ["demo, seed 1, fold 2"]
    assert (report.num_missing, [run.seed for run in report.scenes[0].variants[0].runs]) == (0, [0])


def test_eval_evaluates_folds_that_lack_it_and_names_one_that_is_not_trained(series, tmp_path, call):
    folder = copy(series, tmp_path)
    unit = folder.run_of("demo", 0)
    for path in (unit.report, unit.record, unit.fold(1).report, unit.fold(1).predictions):
        path.unlink()
    assert call("eval", unit)[0] == 0
    assert unit.predictions.read_bytes() == series.run_of("demo", 0).predictions.read_bytes()
    shutil.rmtree(unit.fold(3).path)
    code, _, err = call("eval", unit)
    assert (code, err.splitlines()[-1]) == (
        2,
        f"hsi-se: {unit.fold(3)}: this fold is not trained yet; rerun the `hsi-se train` command that wrote {unit}",
    )


@pytest.mark.parametrize("command", ["map", "export --format onnx", "explain"])
def test_a_folder_of_folds_has_no_classifier_of_its_own(draw, call, command):
    name, *options = command.split()
    code, _, err = call(name, draw, *options)
    assert code == 2
    assert err.startswith(f"hsi-se: {draw}: contains one classifier per fold; name a fold, such as {draw.fold(1)}, or ")
    assert err.count("\n") == 1


def test_report_and_figures_of_a_folder_of_folds_are_those_of_a_run(series, tmp_path, call):
    unit = copy(series, tmp_path).run_of("demo", 0)
    code, out, _ = call("report", unit, "--figures", "svg")
    assert code == 0
    assert f"report: {unit.page}" in out
    assert (unit.figures / "confusion.svg").is_file()


# ------------------------------------------------------------------------------------- the commands


def set_all(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


@pytest.mark.exhaustive
def test_train_runs_the_folds_of_every_draw_and_says_how_far_it_is(series, call, tmp_path):
    out = tmp_path / "out"
    code, printed, err = call("train", DEMO, *set_all(*SVM), "--out", out, "--device", "cpu")
    assert code == 0
    lines = err.splitlines()
    assert re.match(r"1/6  demo, seed 0, fold 1  finished  accuracy [\d.]+ %  \d:\d\d:\d\d left", lines[0])
    assert re.match(r"3/6  demo, seed 0, all folds  finished  accuracy [\d.]+ %  \([\d.]+, n=1\)", lines[3])
    assert printed.splitlines()[-1] == f"next: hsi-se eval {out}"
    for seed in (0, 1):
        ours, theirs = (each.run_of("demo", seed).predictions.read_bytes() for each in (AblationFolder(out), series))
        assert ours == theirs
    code, _, err = call("train", DEMO, *set_all(*SVM, "split.repeats=1"), "--seeds", "0-1", "--out", out)
    assert code == 0
    assert "left" not in err, "--seeds replaces repeats, and everything is finished"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--overwrite"], "--overwrite: has no effect with split.kind: folds, which keeps finished runs; leave it out"),
        (["--set", "split.fold=4"], "split.fold = 4: there are 3 folds; use 1 to 3"),
        (["--set", "split.folds=99"], "split.folds = 99: only "),
        (["--set", "split.buffer=20"], "split.buffer = 20: leaves no training pixels in fold 1 of 3, "),
        (["--set", "split.seed=3"], "split.repeats = 2: has no effect with seed, which fixes the draw of the folds; "),
        (["--set", "split.by=fields"], "split.block_size = 6: has no effect with by: fields; leave it out, or write "),
        (
            ["--set", "split.by=groups", "--set", "split.block_size=16"],
            "split.by = groups: the labels were not drawn as",
        ),
        (["--set", "split.groups_key=x"], "split.groups_key = 'x': has no effect with by: blocks; leave it out, or "),
    ],
)
def test_a_mistake_is_one_line_and_trains_nothing(call, tmp_path, options, problem):
    given = [part for part in SVM if not any(part.startswith(f"{each.partition('=')[0]}=") for each in options)]
    code, out, err = call("train", DEMO, *set_all(*given), *options, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert problem in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_workers_of_a_single_run_are_refused(call):
    code, _, err = call("train", DEMO, "--workers", "2")
    assert (code, err) == (
        2, "hsi-se: --workers: has no effect on a single run, without --seeds and folds; leave it out\n"
    )  # fmt: skip


def test_split_shows_every_fold_and_writes_a_map_that_draws_them_again(call, tmp_path):
    written = [tmp_path / f"folds.{ending}" for ending in ("mat", "json", "png")]
    outs = [part for path in written for part in ("--out", str(path))]
    given = set_all(*SVM)
    code, out, _ = call("split", DEMO, *given, *outs)
    assert code == 0
    report = json.loads(written[1].read_text())
    assert len(report["folds"]) == 3
    assert sum(row["num_test"] for row in report["folds"]) == report["num_test"] == (LABELS > 0).sum()
    for number, row in enumerate(report["folds"], start=1):
        assert re.search(rf"│ {number} +│ +{row['num_train']} │ +{row['num_val']} │ +{row['num_test']} │", out)
        for each in row["split_per_class"]:
            is_lost = each["num_test"] > 0 == each["num_train"] + each["num_val"]
            assert is_lost == (f"{each['name']} ({each['num_test']})" in " ".join(row["notes"]))
            assert not is_lost or f"{each['name']} ({each['num_test']})" in " ".join(out.split())
    assert "location floor: overall accuracy" in out
    leaking = report["leakage"]["test_patches_with_train_pixels"]
    assert f"{100 * leaking:.2f} % of test patches contain training pixels" in out
    again = f"split={{kind: folds, by: groups, folds: 3, groups: {written[0]}, buffer: 5}}"
    code, out, _ = call("split", DEMO, *set_all(*SVM[:-2], again), "--out", tmp_path / "again.json")
    assert code == 0
    found = json.loads((tmp_path / "again.json").read_text())
    assert [row["num_test"] for row in found["folds"]] == [row["num_test"] for row in report["folds"]]


# ------------------------------------------------------------------------------------- kind: all


@pytest.fixture(scope="module")
def delivered(series, tmp_path_factory) -> RunFolder:
    split = f"split={{kind: all, folds: {series.path}}}"
    config = load_config(DEMO, [*SVM[:-2], split, "seed=5"])
    return train(config, out=tmp_path_factory.mktemp("all") / "run", session=CPU)


def test_all_trains_on_every_label_and_reports_the_accuracies_of_its_folds(delivered, series, draw, call):
    split = delivered.read_split()
    assert (LABELS > 0).sum() == len(split.training_side)
    assert not len(split.test)
    code, out, _ = call("eval", delivered)
    assert code == 0
    report = delivered.read_report()
    sentence = f"The accuracies are those of the folds in {series.path}: this classifier is trained on every label."
    assert report.verdict.startswith(sentence)
    assert sentence in out
    assert report.confusion_matrix == draw.read_report().confusion_matrix
    assert "Overall accuracy over 2 draws of the folds" in report.verdict
    assert f"`hsi-se map {delivered}`" in report.next_step
    assert call("map", delivered)[0] == 0
    own = load_file(delivered.explorer)
    assert (own["prediction"] != load_file(draw.explorer)["prediction"]).any(), "the map is its own"


def test_without_its_folds_the_run_of_all_says_how_to_get_an_accuracy(delivered, series, tmp_path, call):
    run = RunFolder(shutil.copytree(delivered.path, tmp_path / "run"))
    text = run.config.read_text()
    run.config.write_text(text.replace(f"folds: {series.path}", "folds: null"))
    code, _, err = call("eval", run)
    assert code == 2
    assert err.startswith(f"hsi-se: {run}: is trained on every labelled pixel, so none is left for testing; ")
    assert f"add `folds: DIR` to split in {run.config}, and evaluate again" in err
    run.config.write_text(text)  # the remedy
    assert call("eval", run)[0] == 0


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["patch.size=11"], r"those folds have other settings \(patch.size is 11 here and 9 there\); train the folds"),
        (
            ["split.folds=nowhere"],
            "split.folds = nowhere: no folds were trained there; give the --out folder of a config",
        ),
    ],
)
def test_folds_of_other_settings_are_refused_before_anything_is_trained(series, tmp_path, overrides, problem):
    split = f"split={{kind: all, folds: {series.path}}}"
    config = load_config(DEMO, [*SVM[:-2], split, *overrides])
    with pytest.raises(ConfigError, match=problem):
        train(config, out=tmp_path / "run", session=CPU)
    assert not (tmp_path / "run").exists()


def test_what_needs_test_pixels_refuses_all(call, tmp_path):
    given = set_all(*SVM[:-2], "split={kind: all}")
    code, _, err = call("split", DEMO, *given)
    assert (code, err.count("\n")) == (2, 1)
    assert "split.kind = all: trains on every labelled pixel" in err
    idle = set_all(*SVM[:-2], "split={kind: all, validation: 0, seed: 1}")
    code, _, err = call("train", DEMO, *idle, "--out", tmp_path / "out")
    assert code == 2
    assert "split.seed = 1: has no effect with validation: 0, as nothing is drawn; leave it out\n" in err
    code, _, err = call("train", DEMO, *given, "--seeds", "0-1", "--out", tmp_path / "out")
    assert (code, err) == (2, "hsi-se: split.kind = all: leaves no test pixels to compare runs on; write kind: folds\n")


def test_an_observer_hears_which_fold_is_evaluated(series, tmp_path):
    unit = copy(series, tmp_path).run_of("demo", 0)
    unit.fold(2).report.unlink()
    heard = []

    class Listener(Silent):
        def note(self, text: str) -> None:
            heard.append(text)

    assess_run(unit, session=type(CPU)(None, "cpu", Listener()))
    assert heard[0] == "evaluating fold 2 of 3"
    assert all(note.startswith("spectral baseline: ") for note in heard[1:])
