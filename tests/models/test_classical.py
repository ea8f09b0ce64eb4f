"""The classifiers of single pixels as modules: scikit-learn's answers, bundles without pickle."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import hsi_se
from hsi_se.config.model import Forest, Lda, PixelClassifier, Svm, list_models
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import TrainingError
from hsi_se.evaluation.baselines import fit_pixel_classifier
from hsi_se.models.classical import ForestOfTrees, LinearDiscriminant, SupportVectorMachine
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.sampling.folds import Folds
from hsi_se.training.classical import fit_classical
from tests.conftest import ROOT, TINY

RNG = np.random.default_rng(0)
EACH = [
    Svm(name="svm"), Forest(name="random_forest", trees=20), Forest(name="extra_trees", trees=20),
    Lda(name="lda"),
]  # fmt: skip
NAMES = [name for name, kind in list_models().items() if issubclass(kind, PixelClassifier)]


def fold(y: np.ndarray) -> Folds:
    """Three folds of single pixels."""
    numbers = np.arange(len(y))
    parts = tuple((numbers % 3 != held, numbers % 3 == held) for held in range(3))
    return Folds(np.column_stack([numbers, numbers]), y, numbers, parts)


def draw(num_classes: int, *, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    y = RNG.integers(0, num_classes, count)
    return (RNG.normal(size=(count, 5)) + 0.7 * y[:, None]).astype(np.float32), y


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_machine_gives_scikit_learns_decisions(num_classes):
    x, y = draw(num_classes)
    machine = fit_pixel_classifier(Svm(name="svm", penalty=10, gamma=0.3), x, y, seed=0)
    module = SupportVectorMachine.of(machine, num_classes=num_classes, patch_size=3)
    asked, _ = draw(num_classes)
    logits = module.score(torch.from_numpy(asked)).numpy()
    np.testing.assert_array_equal(logits.argmax(1), machine.predict(asked))
    if num_classes > 2:
        np.testing.assert_allclose(logits, machine.decision_function(asked), atol=1e-4)


@pytest.mark.parametrize("num_classes", [2, 7])
@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
def test_forest_gives_scikit_learns_probabilities(kind, num_classes):
    x, y = draw(num_classes)
    forest = kind(30, random_state=0).fit(x, y)
    module = ForestOfTrees.of(forest, num_classes=num_classes, patch_size=3)
    asked, _ = draw(num_classes)
    found = module.score(torch.from_numpy(asked)).exp().numpy()
    np.testing.assert_allclose(found, forest.predict_proba(asked), atol=2e-6)


@effort(max_examples=30, deadline=None)
@given(
    num_classes=st.integers(2, 6),
    num_bands=st.integers(1, 40),
    count=st.integers(12, 60),
    shrinkage=st.one_of(st.none(), st.floats(0.01, 1)),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_lda_gives_scikit_learns_log_probabilities(num_classes, num_bands, count, shrinkage, scale, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(count) % num_classes
    x = (scale * (5 + rng.normal(size=(count, num_bands)) + 0.5 * y[:, None])).astype(np.float32)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage or "auto")
    expected = make_pipeline(StandardScaler(), lda).fit(x.astype(np.float64), y)
    module = fit_classical(
        Lda(name="lda", shrinkage=shrinkage), x, fold(y), num_classes=num_classes, patch_size=1, seed=0
    )
    assert isinstance(module, LinearDiscriminant)
    logits = module.score(torch.from_numpy(x)).numpy()
    log_shares = expected.predict_log_proba(x.astype(np.float64))  # of two classes, the smaller is 1 minus the other
    np.testing.assert_allclose(logits.clip(min=-25), log_shares.clip(min=-25), rtol=1e-3, atol=1e-3)
    decisions = expected.decision_function(x.astype(np.float64))
    found = logits[:, 1] - logits[:, 0] if num_classes == 2 else logits - logits[:, :1] + decisions[:, :1]
    lowest = logits.min(axis=1) if num_classes == 2 else np.minimum(logits, logits[:, :1])
    is_exact = lowest > -9e3  # logits end at -1e4
    np.testing.assert_allclose(found[is_exact], decisions[is_exact], rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("settings", EACH, ids=lambda each: each.name)
def test_a_class_without_training_pixels_is_never_called(settings):
    x, y = draw(4)
    x, y = x[y != 2], y[y != 2]
    module = fit_classical(settings, x, fold(y), num_classes=4, patch_size=1, seed=0)
    logits = module.score(torch.from_numpy(x))
    assert logits.shape == (len(x), 4)
    assert not (logits.argmax(1) == 2).any()


@pytest.mark.parametrize("settings", EACH, ids=lambda each: each.name)
def test_only_the_centre_of_a_patch_is_looked_at(settings):
    x, y = draw(3)
    module = fit_classical(settings, x, fold(y), num_classes=3, patch_size=3, seed=0)
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
        ("extra_trees", {"trees": 3}),
        ("extra_trees", {"min_leaf": 40}),
        ("lda", {"shrinkage": 0.9}),
    ],
    ids=str,
)
def test_every_setting_changes_the_answer(name, change):
    kind = list_models()[name]
    x, y = draw(3)
    asked = torch.from_numpy(draw(3)[0])
    plain, changed = (
        fit_classical(kind(name=name, **settings), x, fold(y), num_classes=3, patch_size=1, seed=0)
        for settings in ({}, change)
    )
    assert not torch.allclose(plain.score(asked), changed.score(asked))


@pytest.mark.parametrize("settings", EACH, ids=lambda each: each.name)
@pytest.mark.parametrize("label", [0, 1])
def test_a_single_class_is_refused(settings, label):
    x, y = np.zeros((3, 2), np.float32), np.full(3, label)
    with pytest.raises(TrainingError, match=rf"model.name = {settings.name}: .* contains a single class"):
        fit_classical(settings, x, fold(y), num_classes=2, patch_size=1, seed=0)


def test_lda_on_one_pixel_of_each_class_is_refused_with_a_remedy_that_works():
    x, y = draw(3, count=300)
    one = np.unique(y, return_index=True)[1]
    sizes = {"num_classes": 3, "patch_size": 1, "seed": 0}
    with pytest.raises(TrainingError, match=r"model.name = lda: every class has a single training pixel"):
        fit_classical(Lda(name="lda"), x[one], fold(y[one]), **sizes)
    module = fit_classical(Svm(name="svm"), x[one], replace(fold(y[one]), parts=()), **sizes)
    assert (module.score(torch.from_numpy(x[one])).argmax(1).numpy() == y[one]).all()


def test_lda_takes_the_classes_shares_of_the_training_set_as_priors():
    """With equal spectra of both classes, the log-probabilities are those of the shares."""
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    x, y = np.tile(x, (4, 1)), np.repeat([0, 1, 1, 1], 20)
    module = fit_classical(Lda(name="lda"), x, fold(y), num_classes=2, patch_size=1, seed=0)
    logits = module.score(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(logits, np.tile(np.log([0.25, 0.75]), (80, 1)), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_they_run_under_the_same_train_and_eval_and_report(name, tmp_path):
    config = load_config(ROOT / "configs" / "demo.yaml", (*TINY, f"model={{name: {name}}}"))
    run = hsi_se.train(config, out=tmp_path / name)
    assert any("the train section has no effect" in note for note in run.read_record().notes)
    evaluation = hsi_se.evaluate(run)
    report = json.loads(run.report.read_text())
    assert report["overall_accuracy"] == evaluation.overall_accuracy
    assert run.map_figure.is_file()
    again = build_bundled_model(hsi_se.load_bundle(run))
    patches = torch.randn(4, 1, 13, 9, 9)
    torch.testing.assert_close(again(patches), build_bundled_model(hsi_se.load_bundle(run))(patches))
