"""The location floor and the spectral baseline: published numbers, scikit-learn, and hand-made scenes."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from hsi_se import make_split
from hsi_se.config.scene import SceneFiles
from hsi_se.config.split import MasksSplit, RandomSplit
from hsi_se.evaluation import baselines as spectral
from hsi_se.evaluation.baselines import fit_spectral_baseline, predict_by_location
from hsi_se.evaluation.metrics import Evaluation, evaluate_test
from hsi_se.sampling.splits import Split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.scene.scene import GroundTruth
from tests.conftest import REAL_SCENES, needs_real_scenes


def evaluate_location_floor(truth: GroundTruth, split: Split) -> Evaluation:
    return evaluate_test(truth, split, predict_by_location(truth, split))


def split_at_random(truth: GroundTruth, share: object, *, seed: int) -> Split:
    settings = RandomSplit.model_validate({"kind": "random", "train": share, "validation": 0.05})
    return make_split(truth, settings, seed=seed)


@needs_real_scenes
@pytest.mark.parametrize(
    ("scene", "share", "expected"),
    [
        ("indian-pines", 0.1, 97.4),
        ("indian-pines", 0.05, 94.8),
        ("indian-pines", 0.01, 82.6),
        ("pavia-university", 0.1, 98.9),
    ],
)
def test_floors_of_random_splits_reproduce_over_ten_seeds(scene, share, expected):
    truth = load_ground_truth(scene, REAL_SCENES)
    floors = [
        100 * evaluate_location_floor(truth, split_at_random(truth, share, seed=seed)).overall_accuracy
        for seed in range(10)
    ]
    # The published value is a mean over seeds of its own: their spread, besides 0.2 for ties.
    assert np.mean(floors) == pytest.approx(expected, abs=0.2 + np.std(floors, ddof=1) / np.sqrt(10))


@needs_real_scenes
@pytest.mark.parametrize(
    ("scene", "masks", "num_train", "expected"),
    [
        (
            "indian-pines",
            {
                "train": "Indian_pines_fixed_split.mat", "train_key": "TR",
                "test": "Indian_pines_fixed_split.mat", "test_key": "TE",
            },
            695,
            91.8,
        ),
        ("pavia-university", {"train": "TRpaviaU.mat", "test": "TSpaviaU.mat"}, 2774, 73.5),
        (
            SceneFiles(cube="houston.mat", labels="houston_gt.mat", labels_key="houston_gt_tr"),
            {
                "train": "houston_gt.mat", "train_key": "houston_gt_tr",
                "test": "houston_gt.mat", "test_key": "houston_gt_te",
            },
            2832,
            62.8,
        ),
    ],
)  # fmt: skip
def test_floors_of_fixed_splits_reproduce(scene, masks, num_train, expected):
    truth = load_ground_truth(scene, REAL_SCENES)
    split = make_split(truth, MasksSplit(kind="masks", **masks), data=REAL_SCENES)
    assert len(split.training_side) == num_train
    floor = evaluate_location_floor(split.relabel(truth), split)
    assert 100 * floor.overall_accuracy == pytest.approx(expected, abs=0.2)


def test_the_floor_is_scikit_learns_nearest_neighbour_on_row_and_column(small_scene):
    split = split_at_random(small_scene, 0.2, seed=0)
    known = np.concatenate([split.train, split.val])
    labels = small_scene.labels
    neighbour = KNeighborsClassifier(1).fit(known, labels[known[:, 0], known[:, 1]])
    expected = neighbour.score(split.test, labels[split.test[:, 0], split.test[:, 1]])
    assert evaluate_location_floor(small_scene, split).overall_accuracy == pytest.approx(expected)


def test_the_floor_sees_no_spectrum_and_the_baseline_no_place(small_scene):
    split = split_at_random(small_scene, 0.3, seed=0)
    components = small_scene.cube.astype(np.float32)
    floor = evaluate_location_floor(small_scene, split).confusion
    assert np.array_equal(floor, evaluate_location_floor(small_scene, split).confusion)

    # Turn the scene upside down: the same pixels in other places.
    turned = GroundTruth("turned", small_scene.labels[::-1].copy(), small_scene.class_names)
    rows = small_scene.labels.shape[0]
    flip = [np.column_stack([rows - 1 - side[:, 0], side[:, 1]]) for side in (split.train, split.val, split.test)]
    one = fit_spectral_baseline(small_scene, split, components, seed=0)
    other = fit_spectral_baseline(turned, Split(*flip), components[::-1], seed=0)
    assert np.array_equal(one.labels, other.labels)


def test_the_baseline_is_the_scaled_machine_that_its_parameters_name(small_scene):
    split = split_at_random(small_scene, 0.3, seed=0)
    components = small_scene.cube.astype(np.float32)
    baseline = fit_spectral_baseline(small_scene, split, components, seed=0)
    known = split.training_side
    machine = make_pipeline(StandardScaler(), SVC(C=baseline.c, gamma=baseline.gamma))
    machine.fit(components[known[:, 0], known[:, 1]], small_scene.labels[known[:, 0], known[:, 1]])
    expected = machine.score(
        components[split.test[:, 0], split.test[:, 1]], small_scene.labels[split.test[:, 0], split.test[:, 1]]
    )
    assert evaluate_test(small_scene, split, baseline.labels).overall_accuracy == pytest.approx(expected)
    assert len(baseline.labels) == len(split.test)


@pytest.mark.parametrize("per_class", [1, 2])
def test_the_baseline_does_without_tuning_where_no_class_has_a_pixel_for_each_fold(small_scene, per_class):
    split = split_at_random(small_scene, {"per_class": per_class}, seed=0)
    baseline = fit_spectral_baseline(small_scene, split, small_scene.cube.astype(np.float32), seed=0)
    assert len(baseline.labels) == len(split.test)


def test_a_training_side_of_one_class_calls_everything_it():
    labels = np.repeat([[1], [2]], 6, axis=1).astype(np.int32)
    truth = GroundTruth("two rows", labels, {1: "a", 2: "b"})
    first_row = np.argwhere(labels == 1)
    split = Split(
        train=first_row[:4], val=first_row[4:5], test=np.concatenate([first_row[5:], np.argwhere(labels == 2)])
    )
    baseline = fit_spectral_baseline(truth, split, np.zeros((2, 6, 3), np.float32), seed=0)
    assert evaluate_test(truth, split, baseline.labels).confusion.tolist() == [[1, 0], [6, 0]]


def test_tuning_sees_every_class_of_a_large_training_side():
    """Eight pixels of 20,008: drawn without regard to class, they are missing as often as not."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [10_000, 10_000, 8])
    x = (rng.standard_normal((len(y), 2)) + 4 * y[:, None]).astype(np.float32)
    seen = []

    class Folds(StratifiedKFold):
        def split(self, x, y):
            seen.append(np.bincount(y, minlength=3).tolist())
            return super().split(x, y)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectral, "StratifiedKFold", Folds)
        spectral.fit_svm(x, y, seed=0, gamma=0.5)
    assert seen == [[1000, 1000, 3]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("gamma", [None, 0.7])
def test_tuning_chooses_what_a_grid_search_by_scikit_learn_chooses(seed, gamma):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, 150)
    x = (rng.standard_normal((len(y), 5)) + 0.8 * y[:, None]).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(x))
    search = GridSearchCV(
        make_pipeline(StandardScaler(), SVC()),
        {"svc__C": [1.0, 10.0, 100.0, 1000.0], "svc__gamma": [0.05, 0.2, 0.8] if gamma is None else [gamma]},
        cv=StratifiedKFold(3, shuffle=True, random_state=seed),
    ).fit(x[order], y[order])
    machine = spectral.fit_svm(x, y, seed=seed, gamma=gamma).named_steps["svc"]
    assert search.best_params_["svc__C"] == machine.C
    assert machine.gamma == pytest.approx(search.best_params_["svc__gamma"])


@pytest.mark.parametrize("counts", [(10, 1), (3000, 1), (5, 2, 1)])
def test_one_class_alone_with_a_pixel_for_each_fold_is_no_ground_for_tuning(counts):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(len(counts)), counts)
    x = rng.standard_normal((len(y), 4)).astype(np.float32)
    machine = spectral.fit_svm(x, y, seed=0).named_steps["svc"]
    assert (machine.C, machine.gamma) == (100.0, 0.25)
