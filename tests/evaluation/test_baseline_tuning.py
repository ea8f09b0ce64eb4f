"""How the classifiers of the spectral baseline are tuned, and what must not change them."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.svm import SVC

from hsi_se.config.model import Forest, Lda, Svm
from hsi_se.config.split import RandomSplit
from hsi_se.evaluation.baselines import (
    Candidate,
    SpectralBaseline,
    choose_parameters,
    fit_pixel_classifier,
    hold_out,
    pool_baselines,
)
from hsi_se.sampling.folds import Folds
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth

# ---------------------------------------------------------------------------------- how it is tuned


def fold(y: np.ndarray, *, seed: int = 0) -> Folds:
    """Three folds of single pixels, drawn class by class."""
    order = np.random.default_rng(seed).permutation(len(y))
    number = np.empty(len(y), int)
    number[order[np.argsort(y[order], kind="stable")]] = np.arange(len(y)) % 3
    parts = tuple((number != held, number == held) for held in range(3))
    pixels = np.column_stack([np.arange(len(y))] * 2)
    return Folds(pixels, y, np.arange(len(y)), parts)


def test_tuning_sees_every_class_of_a_large_training_side_and_few_of_its_pixels(monkeypatch):
    """Eight pixels of 20,008: drawn without regard to class, they are missing as often as not."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [10_000, 10_000, 8])
    x = (rng.standard_normal((len(y), 2)) + 4 * y[:, None]).astype(np.float32)
    seen = []
    fit_one = SVC.fit

    def counted(self, x, y, *rest):
        seen.append(np.bincount(y, minlength=3).tolist())
        return fit_one(self, x, y, *rest)

    monkeypatch.setattr(SVC, "fit", counted)
    best, accuracy = choose_parameters(Svm(name="svm", gamma=0.5), x, fold(y), seed=0)
    assert accuracy > 0.9
    assert len(seen) == 12
    for first, second, third in seen:
        assert first == pytest.approx(second, abs=1)
        assert third >= 1
        assert first + second + third <= 1003
    assert best.gamma == 0.5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("gamma", [None, 0.7])
def test_tuning_chooses_what_a_grid_search_by_scikit_learn_chooses(seed, gamma):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, 150)
    x = (rng.standard_normal((len(y), 5)) + 0.8 * y[:, None]).astype(np.float32)
    folds = fold(y, seed=seed)
    number = np.argmax([held for _, held in folds.parts], axis=0)
    scale = SVC(gamma="scale").fit(x, y)._gamma
    gammas = [0.25 * scale, scale, 4 * scale] if gamma is None else [gamma]
    grid = {"C": [10.0, 30.0, 100.0, 1000.0], "gamma": gammas}
    search = GridSearchCV(SVC(break_ties=True), grid, cv=PredefinedSplit(number)).fit(x, y)
    best, accuracy = choose_parameters(Svm(name="svm", gamma=gamma), x, folds, seed=seed)
    assert search.best_params_["C"] == best.penalty
    assert best.gamma == pytest.approx(search.best_params_["gamma"])
    assert accuracy == pytest.approx(search.best_score_)  # 50 pixels in each fold


def test_an_svm_takes_components_with_the_scale_that_their_reduction_gives_them():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    signal = (y[:, None] - 1) * rng.choice([-1, 1], (300, 1)) + 0.2 * rng.standard_normal((300, 1))
    noise = 0.1 * rng.standard_normal((300, 30))  # as noisy as the signal if each component had unit variance
    x = np.hstack([signal, noise]).astype(np.float32)
    _, accuracy = choose_parameters(Svm(name="svm"), x, fold(y, seed=0), seed=0)
    _, rescaled = choose_parameters(Svm(name="svm"), x / x.std(axis=0), fold(y, seed=0), seed=0)
    assert accuracy > rescaled + 0.05


@pytest.mark.parametrize("counts", [(10, 1), (3000, 1), (5, 2, 1)])
def test_one_class_alone_with_a_pixel_for_each_fold_is_no_ground_for_tuning(counts):
    y = np.repeat(np.arange(len(counts)), counts)
    labels = np.concatenate([y, [0]])[None] + 1
    truth = GroundTruth("a row", labels.astype(np.int32), dict.fromkeys(range(1, len(counts) + 1), ""))
    pixels = np.argwhere(labels > 0)
    split = Split(train=pixels[:-1], val=pixels[:0], test=pixels[-1:])
    folds, notes = hold_out(truth, split, RandomSplit(kind="random", train=0.5), seed=0)
    assert folds.parts == ()
    assert len(notes) == 1
    x = np.random.default_rng(0).standard_normal((len(y), 4)).astype(np.float32)
    best, accuracy = choose_parameters(Svm(name="svm"), x, folds, seed=0)
    assert (best.penalty, accuracy) == (100.0, None)
    assert best.gamma == pytest.approx(1 / (4 * x.var()))


@pytest.mark.parametrize("settings", [Forest(name="extra_trees"), Lda(name="lda")], ids=lambda each: each.name)
def test_trees_and_lda_keep_their_settings(settings):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    x = (rng.normal(size=(90, 4)) + y[:, None]).astype(np.float32)
    best, accuracy = choose_parameters(settings, x, fold(y), seed=0)
    assert best == settings
    assert accuracy > 0.5
    assert fit_pixel_classifier(settings, x, y, seed=0).score(x, y) > accuracy


# ------------------------------------------------------------------------------------ the real scene


def test_folds_are_pooled_to_what_most_of_them_chose():
    svm, lda = (
        Candidate(kind, "mnf", 20, {"penalty": 1.0}, accuracy) for kind, accuracy in (("svm", 0.5), ("lda", 0.7))
    )
    folds = [SpectralBaseline(np.array([label]), chosen, (svm, lda)) for label, chosen in enumerate((lda, svm, lda))]
    folds.append(SpectralBaseline(np.array([3]), lda, (replace(svm, accuracy=0.9), replace(lda, accuracy=None))))
    pooled = pool_baselines(folds)
    assert pooled.labels.tolist() == [0, 1, 2, 3]
    assert pooled.chosen.name == "shrinkage LDA on 20 MNF components in 3 of 4 folds"
    assert [each.accuracy for each in pooled.candidates] == pytest.approx([0.6, 0.7])
    assert pool_baselines([folds[0], folds[2]]).chosen.name == "shrinkage LDA on 20 MNF components"
