"""A search over settings: it sees no test pixel, can be interrupted, and says both accuracies."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hsi_se.ablation import tune as runner
from hsi_se.ablation.study import load_study
from hsi_se.ablation.tune import StudyFolder, StudyRecord, score, tune
from hsi_se.config.model import Svm
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError, RunError
from hsi_se.evaluation.baselines import fit_pixel_classifier
from hsi_se.progress import Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.sampling.folds import divide_into_folds
from hsi_se.sampling.splits import make_split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.system.files import read_record
from hsi_se.system.session import Session
from hsi_se.workflows.preparation import prepare
from tests.conftest import CPU, ROOT

DEMO = ROOT / "configs" / "demo.yaml"
pytestmark = pytest.mark.usefixtures("quick_baseline")
BLOCKS = "kind: blocks, train: 0.5, block_size: 5, buffer: 5"
BASE = f"""\
base: {DEMO}
trials: 4
set:
  scene: {{synthetic: 0, rows: 40, cols: 40, bands: 16}}
  split: {{{BLOCKS}}}
  reduction: {{kind: pca, components: 13, fit_on: train}}
  patch.size: 9
  model: {{name: svm, gamma: 0.05}}
  prediction.calibration: none
search:
"""
SVM = BASE + "  model.penalty: {log: [0.001, 100.0]}\n"


class Impatient(Silent):
    """Ends a search after a trial, as Ctrl-C would."""

    def __init__(self, *, after: int) -> None:
        self._after = after
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
        if text.startswith(f"trial {self._after}"):
            raise KeyboardInterrupt


@pytest.fixture
def write(tmp_path):
    def to_file(text: str) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


@pytest.fixture(scope="module")
def searched(tmp_path_factory, quick_baseline) -> tuple[StudyFolder, StudyRecord]:
    assert quick_baseline is None
    folder = tmp_path_factory.mktemp("searched")
    (folder / "study.yaml").write_text(SVM, encoding="utf-8")
    return tune(load_study(folder / "study.yaml"), out=folder / "out", session=CPU)


def test_the_inner_accuracy_is_that_of_training_pixels_that_were_held_out(searched):
    """Recomputed with each fold's own classifier."""
    folder, record = searched
    given = prepare(load_config(folder.best), data=None, device=torch.device("cpu"))
    folds = divide_into_folds(given.scene, given.split, given.config.split, seed=given.config.seed)
    x = given.components[tuple(folds.pixels.T)]
    assert isinstance(given.config.model, Svm)
    right = []
    for fit, held in folds.parts:
        machine = fit_pixel_classifier(given.config.model, x[fit], folds.classes[fit], seed=0)
        right.append(machine.predict(x[held]) == folds.classes[held])
    assert record.searches[0].chosen.accuracy == np.mean(np.concatenate(right))
    assert record.searches[0].chosen.num_pixels == sum(map(len, right))
    assert len({trial.accuracy for trial in record.searches[0].trials}) > 1, "else there is nothing to choose"
    assert record.searches[0].chosen.accuracy == max(trial.accuracy for trial in record.searches[0].trials)


def test_the_outer_accuracy_is_that_of_a_run_with_the_best_settings(searched):
    folder, record = searched
    run = RunFolder.open(folder.path / record.searches[0].run)
    assert load_config(folder.best).digest == run.read_config().digest
    assert load_config(folder.best).model.penalty == record.searches[0].chosen.settings["model.penalty"]
    assert record.outer_accuracy == run.read_report().overall_accuracy
    base = load_study(folder.path.parent / "study.yaml").config_of({})
    split = make_split(load_ground_truth(base.scene, None), base.split, seed=base.seed)
    assert (run.read_split().test == split.test).all()
    assert record.num_test == len(split.test)


@pytest.mark.exhaustive
def test_an_interrupted_search_ends_as_one_that_was_not(searched, write, tmp_path):
    study = load_study(write(SVM))
    runner_score, calls = runner.score, []
    with pytest.raises(KeyboardInterrupt):
        tune(study, out=tmp_path / "out", session=Session(device="cpu", observer=Impatient(after=2)))

    def count(*arguments: object) -> tuple[float, int, str]:
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt  # within a trial
        return runner_score(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "score", count)
        with pytest.raises(KeyboardInterrupt):
            tune(study, out=tmp_path / "out", session=CPU)
        _, record = tune(study, out=tmp_path / "out", session=CPU)
    assert len(calls) == 2, "a finished trial is not repeated"
    expected = [(trial.settings, trial.accuracy) for trial in searched[1].searches[0].trials]
    assert [(trial.settings, trial.accuracy) for trial in record.searches[0].trials] == expected
    assert record.outer_accuracy == searched[1].outer_accuracy


@pytest.mark.exhaustive
def test_workers_search_the_same_one_trial_at_a_time(searched, write, tmp_path):
    _, record = tune(load_study(write(SVM)), out=tmp_path / "out", workers=1, session=CPU)
    assert record == searched[1]


def test_no_test_pixel_is_looked_at_during_the_search(write, tmp_path):
    """Other spectra and labels at the test pixels change nothing, to the bit, though the whole scene is used."""
    scene = make_synthetic_scene(seed=0, rows=40, cols=40, bands=16)
    text = BASE.replace("{synthetic: 0, rows: 40, cols: 40, bands: 16}", "{cube: cube.npy, labels: labels.npy}")
    text = text.replace(BLOCKS, "kind: masks, partition: parts.npy").replace("fit_on: train", "fit_on: scene")
    text = text.replace(
        "{name: svm, gamma: 0.05}", "{name: hybridsn, width: 0.125}\n  prediction.smoothing: {spatial: 0.5}"
    )
    text += "  train.learning_rate: {log: [0.001, 0.01]}\n"
    study = load_study(
        write(text.replace("set:", "set:\n  train: {epochs: 2, batch_size: 32, norm_statistics: scene}"))
    )
    sides = np.zeros((40, 40), np.uint8)
    for rows in (slice(0, 10), slice(16, 26), slice(32, 40)):  # areas that can be held out
        sides[rows, :20] = 1
    sides[3::16, :20], sides[:, 27:] = 2, 3
    sides[scene.labels == 0] = 0
    test, rng = sides == 3, np.random.default_rng(0)
    found, seen, unhidden = [], [], []
    for name in ("real", "garbage"):
        folder = tmp_path / name
        folder.mkdir()
        cube, labels = scene.cube.copy(), scene.labels.copy()
        if name == "garbage":
            cube[test] = rng.normal(0, 1000, cube[test].shape)
            labels[test] = rng.permutation(labels[test])
        for file, array in (("cube", cube), ("labels", labels.astype(np.uint8)), ("parts", sides)):
            np.save(folder / f"{file}.npy", array)
        values = {"train.learning_rate": 0.003}
        found.append(score(study.config_of(values), Session(data=folder, device="cpu"), 1))
        config, device = study.config_of(values), torch.device("cpu")
        setting = prepare(config, data=folder, device=device, hides_test=True)
        bundle = setting.pack(setting.build(seed=0), versions={})
        facts = bundle.facts.model_dump_json()
        seen.append((setting.components.tobytes(), setting.scene.labels.tobytes(), facts))
        unhidden.append(prepare(config, data=folder, device=device).components.tobytes())
    assert found[0] == found[1]
    assert found[0][1] > 0
    assert seen[0] == seen[1]
    assert unhidden[0] != unhidden[1], "else the test pixels were not changed"


def test_where_training_patches_contain_test_pixels_a_note_says_so(write):
    study = load_study(write(SVM.replace(BLOCKS, "kind: random, train: 0.3")))
    setting = prepare(study.config_of({}), data=None, device=torch.device("cpu"), hides_test=True)
    assert "training patches or smoothing reach test pixels, whose spectra, but no labels, take part" in setting.notes
    assert not setting.scene.labels[tuple(setting.split.test.T)].any()


def test_every_trial_has_the_split_that_the_largest_patches_need(write):
    text = BASE.replace(", buffer: 5", "").replace("{name: svm, gamma: 0.05}", "{name: hybridsn}")
    text = text.replace("  patch.size: 9\n", "")
    study = load_study(write(text + "  patch.size: [9, 13]\n  train.shift: {linear: [0, 2]}\n"))
    splits = [study.config_of({"patch.size": size, "train.shift": shift}).split for size in (9, 13) for shift in (0, 2)]
    assert {split.buffer for split in splits} == {13 + 2}
    assert study.config_of({}).split == splits[0]


def test_settings_that_do_not_fit_together_count_as_the_worst_trial(write, tmp_path, monkeypatch):
    text = BASE.replace("{name: svm, gamma: 0.05}", "{name: hybridsn}")
    text = text.replace("patch.size: 9", "train.noise: 0.1").replace(", buffer: 5", "")
    text = text.replace("trials: 4", "trials: 12") + "  patch.size: [9, 11]\n  train.shift: [0, 5]\n"
    monkeypatch.setattr(runner, "score", lambda *_: (0.5, 10, ""))
    observer = Impatient(after=11)
    with pytest.raises(KeyboardInterrupt):
        tune(load_study(write(text)), out=tmp_path / "out", session=Session(device="cpu", observer=observer))
    problem = "search: train.shift: train.shift = 5: shifts patches of 9 pixels past their centre pixel; use at most 4"
    outcomes = {note.split(": ", 1)[1] for note in observer.notes}
    assert outcomes == {
        f"{problem} (patch.size = 9, train.shift = 5)",
        *(f"OA 50.00 % (patch.size = {size}, train.shift = {shift})" for size, shift in ((9, 0), (11, 0), (11, 5))),
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("  train.learning_rat: [1e-3, 1e-2]", "11:3: search: train.learning_rat = 0.001: unknown setting; "),
        ("  train.noise: [0.1]", "11:3: search.train.noise"),
        ("  train.noise: {log: [0.0, 0.1]}", "11:17: search.train.noise.log: write two numbers in ascending order"),
        ("  train.noise: {linear: [0.2, 0.1]}", "11:17: search.train.noise.linear: write two numbers in ascending"),
        ("  train.noise: {}", "11:3: search.train.noise: write {log: [1e-4, 1e-2]} or {linear: [0, 0.5]}"),
        ("  reduction.components: [0, 5]", "11:3: search: reduction.components = 0: must be above 0"),
        ("  split.train: [0.1, 0.2]", "11:3: search.split.train: decides which pixels are tested; write it under set:"),
        ("  seed: [0, 1]", "11:3: search.seed: decides which pixels are tested; write it under set:"),
        ("  train.checkpoint_every_s: [0, 1]", "11:3: search.train.checkpoint_every_s: has no effect on a search"),
        ("  patch.padding: [zero, zero]", "11:3: search.patch.padding: two values give the same settings; remove one"),
        ("  model: [{name: lda}, {name: svm}]", "8:3: set: model: is replaced by search.model; leave one of them out"),
    ],
)  # fmt: skip
def test_a_bad_search_is_refused_where_it_is_written(write, lines, message):
    path = write(f"{BASE}{lines}\n")
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}:{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trials: 4", "trials: 0", "2:1: trials = 0: must be above 0"),
        ("trials: 4", "trails: 5", "2:1: trails = 5: unknown setting"),
        (BLOCKS, "kind: folds, by: blocks, repeats: 2", "1:1: split.repeats = 2: a search draws the folds once"),
        (BLOCKS, "kind: all", "1:1: split.kind = all: a search needs test pixels"),
    ],
)  # fmt: skip
def test_a_bad_study_is_refused_where_it_is_written(write, old, new, message):
    path = write(SVM.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(f"{path}:{message}")):
        load_study(path)


def test_settings_that_were_tried_before_are_not_trained_again(write, tmp_path, monkeypatch):
    calls: list[object] = []
    monkeypatch.setattr(runner, "score", lambda config, *__: calls.append(config) or (0.5, 10, ""))
    text = BASE.replace("trials: 4", "trials: 8") + "  model: [{name: lda}, {name: svm, gamma: 0.05, penalty: 10}]\n"
    text = text.replace("  model: {name: svm, gamma: 0.05}\n", "")
    with pytest.raises(KeyboardInterrupt):
        tune(load_study(write(text)), out=tmp_path / "out", session=Session(device="cpu", observer=Impatient(after=7)))
    assert len(calls) == 2


def test_a_range_of_whole_numbers_gives_whole_numbers_and_both_stay_in_their_ranges(write, tmp_path, monkeypatch):
    tried: list[dict[str, float]] = []

    def score(config, *_):
        tried.append({"train.shift": config.train.shift, "train.noise": config.train.noise})
        return len(tried) / 10, 10, ""

    monkeypatch.setattr(runner, "score", score)
    text = BASE.replace("{name: svm, gamma: 0.05}", "{name: hybridsn}").replace("trials: 4", "trials: 9")
    study = load_study(write(text + "  train.shift: {linear: [1, 3]}\n  train.noise: {log: [0.001, 0.1]}\n"))
    with pytest.raises(KeyboardInterrupt):
        tune(study, out=tmp_path / "out", session=Session(device="cpu", observer=Impatient(after=8)))
    assert {values["train.shift"] for values in tried} == {1, 2, 3}
    assert all(isinstance(values["train.shift"], int) for values in tried)
    noise = [values["train.noise"] for values in tried]
    assert 0.001 <= min(noise) < 0.01 < max(noise) <= 0.1, "half of them below the geometric mean"


@pytest.fixture
def folds(write) -> Path:
    text = SVM.replace(BLOCKS, "kind: folds, folds: 2, by: blocks, block_size: 10, buffer: 1")
    return write(text.replace("patch.size: 9", "patch.size: 1").replace("trials: 4", "trials: 2"))


def test_each_fold_has_a_search_inside_its_own_training_set(call, folds, tmp_path):
    """Nested cross-validation: each search is that of a study with this fold alone, and all pixels are tested once."""
    code, out, error = call("tune", folds, "--out", tmp_path / "all", "--device", "cpu")
    assert code == 0, error
    whole = read_record(StudyRecord, tmp_path / "all" / "study.json", remedy="")
    for fold, found in enumerate(whole.searches, start=1):
        study = load_study(folds, [f"split.fold={fold}"])
        _, single = tune(study, out=tmp_path / str(fold), session=CPU)
        assert single.searches == (found,)
    right = sum(round(each.outer_accuracy * each.num_test) for each in whole.searches)
    base = load_study(folds).config_of({})
    assert whole.num_test == np.count_nonzero(load_ground_truth(base.scene, None).labels)
    lines = out.splitlines()
    tested = f"of {whole.num_test:,} test pixels, which had no part in the search of their fold"
    assert f"outer accuracy: {100 * right / whole.num_test:.2f} % {tested}" in lines
    assert [line for line in lines if line.startswith("fold")] == ["fold 1", "fold 2"]
    assert "trial 1 of fold 2: OA" in error
    code, again, error = call("tune", folds, "--out", tmp_path / "all", "--device", "cpu")
    assert (code, again.splitlines()[-2:], "trial" in error) == (0, lines[-2:], False), "nothing was left to do"


def test_the_command_prints_both_accuracies_and_resumes(call, searched):
    folder, record = searched
    code, out, error = call("tune", folder.path.parent / "study.yaml", "--out", folder, "--device", "cpu")
    assert code == 0, error
    assert record.sentences[0].startswith(f"inner accuracy: {100 * record.searches[0].chosen.accuracy:.2f} % of ")
    for line in (*record.sentences, f"next: hsi-se train {folder.best}"):
        assert line in out.splitlines()
    assert "trial" not in error, "nothing was left to do"
    assert read_record(StudyRecord, folder.record, remedy="") == record


def test_an_interrupted_command_says_in_one_line_how_to_resume(call, monkeypatch, write, tmp_path):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "score", interrupt)
    code, out, error = call("tune", write(SVM), "--out", tmp_path / "out", "--device", "cpu")
    assert (code, out) == (130, "")
    assert error == "hsi-se: interrupted; rerun the same command to resume (finished work is kept)\n"


def test_more_trials_may_be_added_later_and_another_study_is_refused(searched, write, tmp_path):
    folder, record = searched
    with pytest.raises(RunError, match=r"contains another study \(study, digest \w+; this one is study, \w+\); choose"):
        tune(load_study(write(SVM.replace("0.001", "0.01"))), out=folder.path, session=CPU)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RunError, match="already exists but is not a study folder; choose another with --out DIR"):
        tune(load_study(write(SVM)), out=tmp_path / "other", session=CPU)
    assert load_study(write(SVM.replace("trials: 4", "trials: 5"))).digest == record.digest


def test_without_optuna_a_search_is_refused_in_one_line(call, monkeypatch, write, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, error = call("tune", write(SVM), "--out", tmp_path / "out")
    assert (code, error) == (2, "hsi-se: tune needs optuna; in the clone of hsi-se, pip install '.[tune]'\n")
    assert not (tmp_path / "out").exists()


def test_a_study_is_no_config_and_a_config_no_study(call, write):
    path, train = write(SVM), f"train it with `hsi-se train {DEMO}`"
    for command, file, message in (
        ("train", path, f"{path}: is a study, not a config; run it with `hsi-se tune {path}`"),
        ("ablate", path, f"{path}: is a study, not an ablation; run it with `hsi-se tune {path}`"),
        ("tune", DEMO, f"{DEMO}: is a config, not a study; {train}, or name it as base: in a study"),
    ):  # fmt: skip
        assert call(command, file)[::2] == (2, f"hsi-se: {message}\n")


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_of_the_package_can_be_loaded(path):
    study = load_study(path)
    assert study.name == path.stem
    assert study.given.trials > 1


def test_the_study_in_the_docs_is_the_one_that_can_be_run():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    lines = (ROOT / "configs" / "studies" / "demo.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    assert f"```yaml\n{''.join(line for line in lines if line[0] != '#')}```" in page
