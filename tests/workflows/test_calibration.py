"""The temperature of a run: found at the end of training, used by every command, and never at its cost."""

import json
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

import hsi_se
from hsi_se.ablation.file import load_ablation, repeat_over_seeds
from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import Interrupted
from hsi_se.evaluation.confidence import fit_scaling, measure_calibration, to_probabilities
from hsi_se.maps.write import write_map
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.prediction.logits import average_symmetries, predict_logits
from hsi_se.progress import EpochRecord, Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import open_run
from hsi_se.sampling.folds import divide_into_folds
from hsi_se.system.session import Session
from hsi_se.training.checkpoint import list_checkpoints
from hsi_se.workflows.calibration import calibrate
from hsi_se.workflows.preparation import prepare
from hsi_se.workflows.train import resume
from tests.conftest import ROOT, TINY, set_options

DEMO = ROOT / "configs" / "demo.yaml"
SMALL = (
    *TINY,
    "scene={synthetic: 0, rows: 40, cols: 40, bands: 16}",
    "split={kind: random, train: 0.25, validation: 0.02}",
    "model={name: hybridsn, width: 0.25}",
    "train={epochs: 14, batch_size: 32, learning_rate: 1e-2, label_smoothing: 0.3}",  # unsure of itself
    "prediction.calibration=auto",
)
FOREST = "model={name: random_forest, trees: 20, min_leaf: 8}"


class Watching(Silent):
    """An observer that remembers tasks, epochs and notes, and may act when a task starts."""

    def __init__(self, act: Callable[[str], None] = lambda _: None) -> None:
        self.tasks: list[str] = []
        self.epochs: list[int] = []
        self.notes: list[str] = []
        self._act = act

    def start(self, task: str, *, total: int, unit: str) -> None:
        assert total >= 0
        assert unit in ("patches", "pixels")
        self.tasks.append(task)
        self._act(task)

    def advance(self, count: int) -> None: ...

    def epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record.epoch)

    def note(self, text: str) -> None:
        self.notes.append(text)


def load(*changes: str) -> Config:
    return load_config(DEMO, [*SMALL, *changes])


def train(path: Path, *changes: str, observer: Watching | None = None) -> RunFolder:
    return hsi_se.train(load(*changes), out=path, session=Session(None, "cpu", observer or Watching()))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def watched() -> Watching:
    return Watching()


@pytest.fixture(scope="module")
def run(tmp_path_factory, watched, _one_thread) -> RunFolder:
    """Four validation pixels, as in the report of a temperature of 0.09."""
    return train(tmp_path_factory.mktemp("runs") / "run", observer=watched)


def test_a_temperature_is_cross_fitted_where_validation_pixels_are_few(run, watched):
    scaling = run.read_facts().scaling
    record, split = run.read_record(), run.read_split()
    assert 0 < record.num_val < 20
    assert scaling.is_scaled
    assert scaling.source == "cross-fit"
    assert scaling.num_pixels == scaling.num_groups == len(split.training_side)
    assert 0 < scaling.gain_low < scaling.gain < scaling.gain_high
    assert watched.tasks == ["training", *(f"calibration: fold {n} of 3" for n in (1, 1, 2, 2, 3, 3))]
    assert watched.epochs == list(range(1, 15)), "epochs of the folds are not the run's"
    assert len(run.read_progress()[1]) == 14


def test_the_temperature_brings_confidence_and_accuracy_together_on_test_pixels(run):
    hsi_se.evaluate(run)
    found = run.read_report().calibration
    assert found.expected_calibration_error_scaled < 0.6 * found.expected_calibration_error


def test_eval_reports_and_maps_use_the_temperature_of_the_bundle(run, call):
    code, out, _ = call("eval", run, "--device", "cpu")
    assert code == 0
    scaling = run.read_facts().scaling
    assert f"after {scaling.about}." in " ".join(out.split())
    report = json.loads(run.report.read_text())["calibration"]
    assert scaling.is_scaled
    assert report["scaling"] == vars(scaling)
    for text in (run.report_text.read_text(), run.page.read_text()):
        assert scaling.about in text

    opened = open_run(run)
    logits = predict_logits(build_bundled_model(opened.bundle), opened.components, padding="reflect")
    rows, cols = opened.split.test.T
    truth = np.searchsorted(opened.scene.class_ids, opened.scene.labels[rows, cols])
    chances = to_probabilities(logits[rows, cols], temperature=scaling.temperature)
    expected = measure_calibration(chances, truth).ece
    assert report["expected_calibration_error_scaled"] == pytest.approx(expected, abs=1e-4)


def test_the_weights_are_those_of_a_run_without_calibration_to_the_bit(run, tmp_path):
    watched = Watching()
    plain = train(tmp_path / "plain", "prediction.calibration=none", observer=watched)
    assert watched.tasks == ["training"]
    assert plain.bundle_arrays.read_bytes() == run.bundle_arrays.read_bytes()
    assert plain.read_record().history[-1].loss == run.read_record().history[-1].loss
    scaling = plain.read_facts().scaling
    assert (scaling.temperature, scaling.is_scaled) == (1, False)
    assert scaling.lack == "prediction.calibration is none, the default of ablations, folds and gap; train with auto"


@pytest.mark.parametrize(("num_done", "left"), [(1, (1, 1, 2, 2, 3, 3)), (4, (1, 1, 2, 2, 3, 3))])
def test_an_interrupted_calibration_is_resumed_without_training_the_network_again(run, tmp_path, num_done, left):
    path = tmp_path / "run"

    def interrupt(task: str) -> None:
        if task.startswith("calibration") and len(watched.tasks) > num_done:
            signal.raise_signal(signal.SIGTERM)

    watched = Watching(interrupt)
    message = f'interrupted during calibration; resume with `hsi_se.resume("{path}")`'
    with pytest.raises(Interrupted, match=re.escape(message)):
        train(path, observer=watched)
    assert len(list_checkpoints(path / "checkpoints")) >= 1
    watched = Watching()
    resumed = resume(path, session=Session(None, "cpu", watched))
    assert watched.tasks == ["training from epoch 15", *(f"calibration: fold {n} of 3" for n in left)]
    assert watched.epochs == []
    assert resumed.bundle_arrays.read_bytes() == run.bundle_arrays.read_bytes()
    assert resumed.read_facts() == run.read_facts()
    assert not resumed.checkpoints.exists()


def test_a_killed_calibration_finds_the_finished_network_on_the_disk(run, tmp_path):
    """A process that is killed can save nothing: the checkpoint must have been there before."""

    class Killed(BaseException): ...

    def die(task: str) -> None:
        if task.startswith("calibration"):
            assert len(list_checkpoints(tmp_path / "run" / "checkpoints")) >= 1
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "run", observer=Watching(die))
    watched = Watching()
    resumed = resume(tmp_path / "run", session=Session(None, "cpu", watched))
    assert watched.epochs == []
    assert resumed.read_facts() == run.read_facts()


def test_without_validation_pixels_the_probabilities_are_calibrated_too(tmp_path):
    run = train(tmp_path / "run", "split.validation=0", FOREST)
    assert run.read_record().num_val == 0
    assert run.read_facts().scaling.source == "cross-fit"
    assert run.read_facts().scaling.is_scaled


def test_the_temperature_of_a_forest_is_that_of_scikit_learns_forests_on_the_same_folds(tmp_path):
    run = train(tmp_path / "run", FOREST)
    opened = open_run(run)
    folds = divide_into_folds(opened.scene, opened.split, opened.config.split, seed=0)
    x = opened.components[folds.pixels[:, 0], folds.pixels[:, 1]]
    logits = np.empty((len(x), opened.scene.num_classes))
    number_of = np.empty(len(x), dtype=int)
    for number, (fit, held) in enumerate(folds.parts):
        forest = RandomForestClassifier(n_estimators=20, min_samples_leaf=8, random_state=1 + number)
        shares = forest.fit(x[fit], folds.classes[fit]).predict_proba(x[held])
        assert len(forest.classes_) == opened.scene.num_classes
        logits[held] = np.log(np.maximum(shares, 1e-6))
        number_of[held] = number
    expected = fit_scaling(logits, folds.classes, source="cross-fit", groups=folds.groups, folds=number_of)
    found = run.read_facts().scaling
    assert expected.is_scaled
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert found.gain_low == pytest.approx(expected.gain_low, rel=1e-2)


def test_a_hundred_validation_pixels_of_a_random_split_need_no_cross_fitting(tmp_path):
    watched = Watching()
    split = "split={kind: random, train: 0.5, validation: 0.4}"
    run = train(tmp_path / "run", split, "prediction.symmetries=true", observer=watched)
    scaling = run.read_facts().scaling
    assert watched.tasks == ["training", "calibration"]
    assert scaling.source == "validation"
    assert scaling.num_pixels == len(run.read_split().val) >= 100
    # As delivered: the logits are the mean over the eight symmetries.
    opened = open_run(run)
    model = build_bundled_model(opened.bundle)

    def predict(cube: np.ndarray) -> np.ndarray:
        return predict_logits(model, cube, padding="reflect", engine="patches")

    rows, cols = opened.split.val.T
    logits = average_symmetries(predict, opened.components, num_passes=8)[rows, cols]
    truth = np.searchsorted(opened.scene.class_ids, opened.scene.labels[rows, cols])
    expected = fit_scaling(logits, truth, source="validation", groups=np.arange(len(truth)))
    assert scaling.is_scaled
    assert scaling.temperature == pytest.approx(expected.temperature, rel=1e-3)


@pytest.mark.parametrize("split", ["{kind: blocks, train: 0.4, block_size: 5, buffer: 5}"])
def test_validation_pixels_among_the_training_blocks_never_calibrate_by_themselves(tmp_path, split):
    settings = f"split={split}", "split.validation=0.4", FOREST
    run = train(tmp_path / "run", *settings)
    assert len(run.read_split().val) >= 100
    scaling = run.read_facts().scaling
    assert scaling.source == "cross-fit"
    assert scaling.num_groups < scaling.num_pixels / 3, "fields, not pixels"


def test_four_validation_pixels_calibrate_nothing_and_every_place_says_so(tmp_path, call):
    watched = Watching()
    changes = "split={kind: blocks, train: 0.3, block_size: 5, buffer: 5, validation: 0.02}", "train.epochs=2"
    run = train(tmp_path / "run", *changes, "prediction.calibration=validation", observer=watched)
    scaling = run.read_facts().scaling
    assert 0 < scaling.num_pixels < 10
    assert (scaling.temperature, scaling.is_scaled) == (1, False)
    why = (
        f"not calibrated: {scaling.num_pixels} validation pixels are too few to fit a temperature, which "
        "takes 30; set prediction.calibration: cross-fit, or raise split.validation"
    )
    assert scaling.about == why
    assert f"the probabilities are {why}" in watched.notes
    code, out, _ = call("eval", run, "--device", "cpu")
    assert code == 0
    assert f"The confidence is {why}." in " ".join(out.split())
    for text in (run.report_text.read_text(), run.page.read_text(), json.loads(run.report.read_text())):
        assert why in (text if isinstance(text, str) else text["calibration"]["about"])
    assert scaling.lack in run.page.read_text().split('data-for="certainty"')[1].split("</ul>")[0]
    write_map(run, probabilities=True, session=Session(None, "cpu", watched))
    assert f"the probabilities are {why}" in watched.notes[1:]
    facts = json.loads((run.path / "map" / "map.json").read_text())
    assert facts["probabilities"] == f"the probabilities are {why}"


def test_a_fold_that_diverges_costs_the_calibration_and_not_the_run(run):
    setting = prepare(load(), data=None, device=torch.device("cpu"))
    wild = setting.config.train.model_copy(update={"learning_rate": 1e30})
    setting = replace(setting, config=setting.config.model_copy(update={"train": wild}))
    found = calibrate(run.read_bundle(), setting, epochs=2, observer=Watching())
    assert found.temperature == 1
    assert found.lack == "calibration: fold 1 of 3: training diverged; lower train.learning_rate"


def test_training_pixels_that_cannot_be_divided_are_named_before_anything_is_trained(tmp_path):
    watched = Watching()
    split = "split={kind: fields, train: 0.1, validation: 0, buffer: 5}"
    run = train(tmp_path / "run", split, "train.epochs=1", observer=watched)
    assert watched.tasks == ["training"]
    assert run.read_facts().scaling.lack == (
        "the training pixels lie too close together to train on some of them and predict others that are as "
        "far away as test pixels; label pixels of every class in more areas"
    )


def test_ablations_and_gap_do_not_pay_for_calibration_unless_the_config_asks(tmp_path):
    base = "\n".join(line for line in DEMO.read_text().splitlines() if not line.startswith("#"))
    (tmp_path / "base.yaml").write_text(base)
    file = tmp_path / "ablation.yaml"
    file.write_text("base: base.yaml\nseeds: 0-1\nvariants: {a: {}, b: {model.dropout: 0.1}}\n")
    kinds = {run.config.prediction.calibration for run in load_ablation(file).runs}
    assert kinds == {"none"}
    asked = load_ablation(file, ["prediction.calibration=auto"])
    assert {run.config.prediction.calibration for run in asked.runs} == {"auto"}
    config = load_config(tmp_path / "base.yaml")
    assert config.without_calibration().prediction.calibration == "none"
    # The runs of --seeds equal single runs, calibration included.
    single = config.model_copy(update={"seed": 1})
    assert repeat_over_seeds(config, [1]).runs[0].config == single


def test_validation_pixels_cannot_calibrate_a_classifier_that_is_trained_on_them(call):
    code, _, err = call("train", DEMO, *set_options(*SMALL, FOREST, "prediction.calibration=validation"))
    assert code == 2
    assert err.endswith(
        "prediction.calibration = 'validation': model.name = random_forest is trained on the validation "
        "pixels too; use cross-fit\n"
    )
    assert load(FOREST, "prediction.calibration=cross-fit")
