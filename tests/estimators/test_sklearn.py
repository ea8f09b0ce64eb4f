"""The package in scikit-learn's words: its own checks of estimators, images, pickles, and spatial folds."""

import pickle
import pickletools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import hsi_se
from hsi_se.config.split import FoldsSplit
from hsi_se.errors import HsiError
from hsi_se.sampling.splits import make_split
from hsi_se.scene.synthetic import make_synthetic_scene
from hsi_se.sklearn import HSIClassifier, InputError, PixelClassifier, SpatialFolds


@pytest.fixture(scope="module")
def scene():
    return make_synthetic_scene(seed=0, rows=24, cols=24, bands=16)


@pytest.fixture(scope="module")
def samples(scene):
    known = scene.labels > 0
    return scene.cube[known], scene.labels[known]


TINY = {"model": {"name": "hybridsn", "width": 0.125}, "patch_size": 9, "components": 13, "epochs": 2, "device": "cpu"}


@pytest.fixture(scope="module", name="network")
def _network(scene):
    estimator = HSIClassifier(**TINY, attention={"fold": {"kind": "se", "reduction": 2}})
    return estimator.fit(scene.cube, scene.labels)


# ------------------------------------------------------------------------------------------------ spectra


@pytest.mark.filterwarnings("ignore:Skipping check check_array_api_input")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("svm", marks=pytest.mark.exhaustive),
        "lda",
        pytest.param("random_forest", marks=pytest.mark.exhaustive),
        pytest.param("extra_trees", marks=pytest.mark.exhaustive),
    ],
)
def test_the_classifier_of_spectra_passes_every_check_of_scikit_learn(name):
    results = check_estimator(PixelClassifier(name))  # raises what fails
    assert {each["status"] for each in results} <= {"passed", "skipped"}
    assert [each["check_name"] for each in results if each["status"] == "skipped"] in ([], ["check_array_api_input"])


@pytest.mark.parametrize("name", ["svm", "lda", "extra_trees"])
def test_it_is_the_classifier_that_training_fits(name, scene, samples, tmp_path):
    parameters = {"svm": {"penalty": 10.0, "gamma": 0.05}, "lda": {}, "extra_trees": {"trees": 20}}[name]
    model = {"name": name, **parameters}
    config = {
        "seed": 3, "split": {"kind": "all", "validation": 0}, "reduction": {"kind": "none"}, "patch": {"size": 1},
        "model": model, "train": {"epochs": 1}, "prediction": {"calibration": "none"},
    }  # fmt: skip
    run = hsi_se.train(config, scene=hsi_se.Scene.from_arrays(scene.cube, scene.labels), out=tmp_path / "run")
    estimator = PixelClassifier(model, seed=3).fit(*samples)
    known = scene.labels > 0
    np.testing.assert_array_equal(estimator.predict(samples[0]), hsi_se.map_scene(run).labels[known])
    np.testing.assert_array_equal(
        hsi_se.map_scene(estimator.bundle_, scene).labels[known], estimator.predict(samples[0])
    )


def test_an_svm_is_tuned_and_has_no_probabilities_and_others_have_them(samples):
    x, y = samples[0][::4], np.array(["no", "yes"])[samples[1][::4] % 2]
    svm, lda = PixelClassifier().fit(x, y), PixelClassifier("lda", components=5).fit(x, y)
    assert not hasattr(svm, "predict_proba")
    assert not hasattr(PixelClassifier({"name": "svm"}), "predict_proba")
    assert svm.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(svm.predict(x) == "yes", svm.decision_function(x) > 0)
    np.testing.assert_allclose(lda.predict_proba(x).sum(axis=1), 1)
    np.testing.assert_array_equal(lda.classes_[lda.predict_proba(x).argmax(axis=1)], lda.predict(x))
    assert lda.bundle_.reduction.num_components == 5
    assert svm.score(x, y) > 0.8


def test_it_works_in_pipelines_and_searches(samples):
    x, y = samples
    search = GridSearchCV(PixelClassifier("lda"), {"components": [2, 12]}, cv=2).fit(x, y)
    assert search.best_params_ == {"components": 12}
    assert make_pipeline(StandardScaler(), PixelClassifier("lda")).fit(x, y).score(x, y) > 0.5


# ------------------------------------------------------------------------------------------------- images


def test_an_image_is_fitted_predicted_and_scored(network, scene):
    labels = network.predict(scene.cube)
    chances = network.predict_proba(scene.cube)
    assert labels.shape == scene.labels.shape
    assert chances.shape == (*scene.labels.shape, len(network.classes_))
    np.testing.assert_allclose(chances.sum(axis=2), 1, rtol=1e-6)
    np.testing.assert_array_equal(network.classes_[chances.argmax(axis=2)], labels)
    known = scene.labels > 0
    assert network.score(scene.cube, scene.labels) == (labels == scene.labels)[known].mean()
    np.testing.assert_array_equal(network.classes_, scene.class_ids)
    assert network.n_features_in_ == 16
    np.testing.assert_array_equal(hsi_se.map_scene(network.bundle_, scene).labels, labels)
    assert network.bundle_.facts.model.attention["fold"].kind == "se"


def test_training_is_that_of_the_config(network, scene, tmp_path):
    config = {
        "split": {"kind": "all"}, "patch": {"size": 9},
        "reduction": {"kind": "pca", "components": 13, "fit_on": "train"},
        "model": {**TINY["model"], "attention": {"fold": {"kind": "se", "reduction": 2}}}, "train": {"epochs": 2},
        "prediction": {"calibration": "none"},
    }  # fmt: skip
    run = hsi_se.train(config, scene=hsi_se.Scene.from_arrays(scene.cube, scene.labels), out=tmp_path / "run")
    for name, weights in hsi_se.load_bundle(run).weights.items():
        np.testing.assert_array_equal(weights, network.bundle_.weights[name])


def test_nothing_is_left_on_the_disk_or_printed(scene, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    HSIClassifier("lda", patch_size=1).fit(scene.cube, scene.labels)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_names_of_classes_and_pixels_without_data_are_kept(scene):
    names = np.array(["", "soil", "wheat", "maize"])[np.where(scene.labels > 3, 0, scene.labels)]
    cube = scene.cube.astype("float32")
    cube[0, 0] = np.nan
    filled = np.nan_to_num(cube, nan=float(np.nanmean(cube)))
    estimator = HSIClassifier("lda", patch_size=1, reduction="none").fit(filled, names)
    assert estimator.classes_.tolist() == ["maize", "soil", "wheat"]
    assert set(np.unique(estimator.predict(filled))) <= {"maize", "soil", "wheat"}
    assert estimator.score(filled, names) == (estimator.predict(filled) == names)[names != ""].mean()


def test_arguments_take_precedence_over_a_config_which_may_be_partial_or_whole(scene):
    partial = HSIClassifier(patch_size=5, config={"model": {"name": "lda"}, "patch": {"size": 7, "padding": "zero"}})
    facts = partial.fit(scene.cube, scene.labels).bundle_.facts
    assert (facts.model.name, facts.patch_size, facts.padding) == ("lda", 5, "zero")
    whole = hsi_se.load_config("configs/demo.yaml", ["model={name: lda}", "prediction.calibration=none"])
    facts = HSIClassifier(config=whole, components=4).fit(scene.cube, scene.labels).bundle_
    assert (facts.facts.patch_size, facts.reduction.num_components) == (whole.patch.size, 4)


def test_estimators_are_cloned_and_have_parameters():
    estimator = HSIClassifier("ssrn", attention={"spatial_1": {"kind": "eca"}}, epochs=3)
    copy = clone(estimator).set_params(epochs=5, patch_size=7)
    assert (copy.epochs, copy.patch_size, estimator.epochs) == (5, 7, 3)
    assert copy.get_params()["attention"] == estimator.attention
    with pytest.raises(NotFittedError):
        copy.predict(np.zeros((4, 4, 3)))


def test_a_pickle_has_the_format_of_bundles_and_predicts_the_same_to_the_bit(network, scene, samples):
    for estimator, x in ((network, scene.cube), (PixelClassifier("lda").fit(*samples), samples[0])):
        text = pickle.dumps(estimator)
        again = pickle.loads(text)
        np.testing.assert_array_equal(again.predict_proba(x), estimator.predict_proba(x))
        np.testing.assert_array_equal(again.predict(x), estimator.predict(x))
        classes = {
            arg for code, arg, _ in pickletools.genops(text) if code.name in ("STACK_GLOBAL", "SHORT_BINUNICODE")
        }
        assert not [each for each in classes if each and ("torch" in each or "hsi_se.runs" in each)]
        assert isinstance(estimator.__getstate__()["bundle_"][1], bytes)
    assert pickle.loads(pickle.dumps(HSIClassifier("lda"))).model == "lda"


def test_wrong_parameters_and_arrays_are_errors_of_one_line(network, scene, samples):
    for function, message in (
        (lambda: HSIClassifier("hybridsm").fit(scene.cube, scene.labels), "model.name = 'hybridsm': did you"),
        (lambda: HSIClassifier(patch_size=4).fit(scene.cube, scene.labels), "HSIClassifier: patch.size = 4"),
        (lambda: HSIClassifier(config={"split": {}}).fit(scene.cube, scene.labels), "config: split: has no effect"),
        (lambda: HSIClassifier(config=3).fit(scene.cube, scene.labels), "config = 3: is not a config"),
        (lambda: HSIClassifier().fit(scene.cube, scene.labels.T[:3]), "labels: the cube has 24 × 24 pixels"),
        (lambda: network.predict(scene.cube[..., :3]), "the scene has 3 bands, but the model was trained on 16"),
        (lambda: HSIClassifier("svm", patch_size=1).fit(scene.cube, scene.labels).predict_proba(scene.cube), "votes"),
        (lambda: PixelClassifier("hybridsn").fit(*samples), "model = 'hybridsn': is not a classifier"),
        (lambda: PixelClassifier({"name": "svm", "gamma": -1}).fit(*samples), "model: gamma = -1: must be above 0"),
        (lambda: PixelClassifier(components=99).fit(*samples), "components = 99: the scene has 16 bands"),
        (lambda: PixelClassifier().fit(samples[0], samples[1] * 0), "y: contains one class, 0; train on two or more"),
    ):  # fmt: skip
        with pytest.raises(HsiError) as caught:
            function()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------- folds


def test_spatial_folds_are_those_of_the_package(scene, samples):
    x, y = samples
    places = np.argwhere(scene.labels > 0)
    kind = {"kind": "folds", "by": "blocks", "folds": 3, "block_size": 6, "buffer": 2, "validation": 0}
    found = list(SpatialFolds(scene.labels, folds=3, block_size=6, buffer=2, seed=7).split(x, y))
    assert len(found) == SpatialFolds(scene.labels, folds=3).get_n_splits() == 3
    for fold, (train, test) in enumerate(found, start=1):
        split = make_split(scene, FoldsSplit(**kind, fold=fold), seed=7)
        np.testing.assert_array_equal(places[train], split.training_side)
        np.testing.assert_array_equal(places[test], split.test)


def test_cross_validation_uses_them(scene, samples):
    folds = SpatialFolds(scene.labels, by="fields", folds=2, buffer=1)
    scores = cross_val_score(PixelClassifier("lda"), *samples, cv=folds)
    by_hand = [
        PixelClassifier("lda").fit(samples[0][train], samples[1][train]).score(samples[0][test], samples[1][test])
        for train, test in folds.split(*samples)
    ]
    np.testing.assert_array_equal(scores, by_hand)
    assert re.fullmatch(r"SpatialFolds\(24 × 24 pixels, by='fields', folds=2, buffer=1\)", repr(folds))


def test_groups_are_tested_as_a_whole_and_group_0_is_left_out(scene, samples):
    rows, cols = np.nonzero(scene.labels)
    groups = cols // 5
    folds = list(SpatialFolds(scene.labels, by="groups", folds=4, buffer=0).split(*samples, groups))
    assert sorted(set(groups[test].tolist()).pop() for _, test in folds) == [1, 2, 3, 4]
    for train, test in folds:
        assert len({*groups[test].tolist()}) == 1
        assert not {*groups[test].tolist(), 0} & {*groups[train].tolist()}
    scores = cross_val_score(
        PixelClassifier("lda"), *samples, groups=groups, cv=SpatialFolds(scene.labels, by="groups", folds=4, buffer=0)
    )
    assert len(scores) == 4
    del rows


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999), size=st.tuples(st.integers(12, 30), st.integers(12, 30)), buffer=st.integers(0, 4),
    block_size=st.integers(2, 6), folds=st.integers(2, 4), by=st.sampled_from(["blocks", "fields"]),
)  # fmt: skip
def test_no_test_pixel_is_nearer_than_the_buffer_to_a_training_pixel(seed, size, buffer, block_size, folds, by):
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 4, (6, 6)), np.ones((5, 5), int))[: size[0], : size[1]]
    labels[0, 0], labels[-1, -1] = 1, 2
    places = np.argwhere(labels > 0)
    options = {"block_size": block_size} if by == "blocks" else {}
    splitter = SpatialFolds(labels, by=by, folds=folds, buffer=buffer, seed=seed, **options)
    tested = []
    try:
        for train, test in splitter.split(places):
            assert len(train)
            assert cdist(places[train], places[test], "chebyshev").min() >= max(buffer, 1)
            tested += test.tolist()
    except HsiError as error:  # too few blocks or fields, or no training pixel is far enough from all test pixels
        assert str(error).startswith(("split.folds", "split.buffer"))  # noqa: PT017
        return
    assert sorted(tested) == list(range(len(places))), "every pixel is tested once"


def test_samples_that_are_not_the_labelled_pixels_are_refused(scene, samples):
    x, y = samples
    folds = SpatialFolds(scene.labels, folds=2)
    for call, message in (
        (lambda: next(folds.split(x[1:])), f"X: has {len(x) - 1} samples, but {len(x)} pixels have a label"),
        (lambda: next(folds.split(x, y[:5])), "y: has 5 samples"),
        (lambda: next(folds.split(x, np.sort(y))), "y: is in another order than the labels"),
        (lambda: next(folds.split(x, y, y)), "groups: has no effect with by='blocks'; leave it out"),
        (lambda: next(SpatialFolds(scene.labels, by="groups").split(x, y)), "groups: is missing; give"),
        (lambda: SpatialFolds(scene.labels, folds=1), "SpatialFolds: split.folds = 1: must be at least 2"),
        (lambda: SpatialFolds(scene.labels, by="rows"), "SpatialFolds: split.by = 'rows': did you"),
        (lambda: SpatialFolds(scene.labels, by="fields", block_size=4), "block_size = 4: has no effect with"),
        (lambda: SpatialFolds(scene.labels - 1), "labels: "),
        (lambda: SpatialFolds("gt.mat"), "labels = 'gt.mat': is text"),
    ):  # fmt: skip
        with pytest.raises(HsiError) as caught:
            call()
        assert message in str(caught.value)
    with pytest.raises(ValueError, match="samples"):
        next(folds.split(x[1:]))
    assert issubclass(InputError, ValueError)
