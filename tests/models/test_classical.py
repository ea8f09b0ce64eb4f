"""The support vector machine and the forest as modules: scikit-learn's answers, bundles without pickle."""

import json

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

import hsi_se
from hsi_se.config.model import RandomForest, Svm
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import TrainingError
from hsi_se.evaluation.baselines import fit_svm
from hsi_se.models.classical import ForestOfTrees, SupportVectorMachine
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.training.classical import fit_classical
from tests.conftest import ROOT, TINY

RNG = np.random.default_rng(0)


def draw(num_classes: int, *, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    y = RNG.integers(0, num_classes, count)
    return (RNG.normal(size=(count, 5)) + 0.7 * y[:, None]).astype(np.float32), y


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_machine_gives_scikit_learns_decisions(num_classes):
    x, y = draw(num_classes)
    machine = fit_svm(x, y, seed=0)
    module = SupportVectorMachine.from_pipeline(machine, num_classes=num_classes, patch_size=3)
    asked, _ = draw(num_classes)
    logits = module.score(torch.from_numpy(asked)).numpy()
    np.testing.assert_array_equal(logits.argmax(1), machine.predict(asked))
    if num_classes > 2:
        np.testing.assert_allclose(logits, machine.decision_function(asked), atol=1e-4)


@pytest.mark.parametrize("num_classes", [2, 7])
def test_forest_gives_scikit_learns_probabilities(num_classes):
    x, y = draw(num_classes)
    forest = RandomForestClassifier(30, random_state=0).fit(x, y)
    module = ForestOfTrees.from_forest(forest, num_classes=num_classes, patch_size=3)
    asked, _ = draw(num_classes)
    found = module.score(torch.from_numpy(asked)).exp().numpy()
    np.testing.assert_allclose(found, forest.predict_proba(asked), atol=2e-6)


@pytest.mark.parametrize("settings", [Svm(name="svm"), RandomForest(name="random_forest", trees=20)])
def test_a_class_without_training_pixels_is_never_called(settings):
    x, y = draw(4)
    x, y = x[y != 2], y[y != 2]
    module = fit_classical(settings, x, y, num_classes=4, patch_size=1, seed=0)
    logits = module.score(torch.from_numpy(x))
    assert logits.shape == (len(x), 4)
    assert not (logits.argmax(1) == 2).any()


@pytest.mark.parametrize("settings", [Svm(name="svm"), RandomForest(name="random_forest", trees=20)])
def test_only_the_centre_of_a_patch_is_looked_at(settings):
    x, y = draw(3)
    module = fit_classical(settings, x, y, num_classes=3, patch_size=3, seed=0)
    patches = torch.randn(10, 1, 5, 3, 3)
    patches[:, 0, :, 1, 1] = torch.from_numpy(x[:10])
    torch.testing.assert_close(module(patches), module.score(torch.from_numpy(x[:10])))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("svm", {"penalty": 0.01}),
        ("svm", {"gamma": 9.0}),
        ("random_forest", {"trees": 3}),
        ("random_forest", {"min_leaf": 40}),
    ],
    ids=str,
)
def test_every_setting_changes_the_answer(name, change):
    kind = {"svm": Svm, "random_forest": RandomForest}[name]
    x, y = draw(3)
    asked = torch.from_numpy(draw(3)[0])
    plain, changed = (
        fit_classical(kind(name=name, **settings), x, y, num_classes=3, patch_size=1, seed=0)
        for settings in ({}, change)
    )
    assert not torch.allclose(plain.score(asked), changed.score(asked))


def test_a_single_class_is_refused():
    with pytest.raises(TrainingError, match="contains a single class"):
        fit_classical(
            Svm(name="svm"), np.zeros((3, 2), np.float32), np.zeros(3, int), num_classes=2, patch_size=1, seed=0
        )


@pytest.mark.parametrize("name", ["svm", "random_forest"])
def test_they_run_under_the_same_train_and_eval_and_report(name, tmp_path):
    config = load_config(ROOT / "configs" / "demo.yaml", (*TINY, f"model={{name: {name}}}"))
    run = hsi_se.train(config, out=tmp_path / name)
    assert any("the train section has no effect" in note for note in run.read_record().notes)
    evaluation = hsi_se.evaluate(run)
    report = json.loads(run.report.read_text())
    assert report["overall_accuracy"] == evaluation.overall_accuracy
    assert run.map_figure.is_file()
    if name == "svm":  # the spectral baseline's machine, which breaks ties of votes by order instead
        baseline = report["spectral_baseline"]["overall_accuracy"]
        assert report["overall_accuracy"] == pytest.approx(baseline, abs=0.01)
    again = build_bundled_model(hsi_se.load_bundle(run))
    patches = torch.randn(4, 1, 13, 9, 9)
    torch.testing.assert_close(again(patches), build_bundled_model(hsi_se.load_bundle(run))(patches))
