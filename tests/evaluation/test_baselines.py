"""The location floor and the spectral baseline: published numbers, scikit-learn, and hand-made scenes."""

import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from hsi_se import make_split
from hsi_se.config.scene import SceneFiles
from hsi_se.config.split import MasksSplit, RandomSplit
from hsi_se.config.yaml_file import load_config
from hsi_se.evaluation.baselines import fit_spectral_baseline, hold_out
from hsi_se.evaluation.metrics import evaluate_test
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.sampling.splits import Split
from hsi_se.scene.loading import load_ground_truth, load_scene
from hsi_se.scene.scene import GroundTruth, Scene
from tests.conftest import REAL_SCENES, ROOT, needs_real_scenes
from tests.evaluation.conftest import configure, evaluate_location_floor, fit, make_scene, score


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
    floor = evaluate_location_floor(small_scene, split).confusion
    other = replace(small_scene, cube=small_scene.cube[::-1, ::-1])
    assert np.array_equal(floor, evaluate_location_floor(other, split).confusion)

    # Turn the scene upside down: the same pixels in other places.
    turned = replace(small_scene, labels=small_scene.labels[::-1].copy(), cube=small_scene.cube[::-1])
    rows = small_scene.labels.shape[0]
    flip = [np.column_stack([rows - 1 - side[:, 0], side[:, 1]]) for side in (split.train, split.val, split.test)]
    one, other = fit(small_scene, split, configure()), fit(turned, Split(*flip), configure())
    assert np.array_equal(one.labels, other.labels)
    assert one.chosen == other.chosen


def overlapping_gaussians(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Six classes with one strongly correlated covariance matrix, which is what LDA assumes."""
    y = rng.integers(0, 6, 1500)
    mixing = rng.normal(size=(20, 20))
    return (rng.normal(size=(len(y), 20)) + rng.normal(size=(6, 20))[y] * 0.6) @ mixing, y


def thresholds(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Four classes by thresholds on two bands, among bands of noise."""
    x = rng.uniform(-1, 1, (1500, 10))
    return x, 2 * (np.abs(x[:, 0]) > 0.5) + (np.abs(x[:, 1]) > 0.5)


def shells(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shells around a common centre, in directions that no single band shows."""
    x = rng.normal(size=(1500, 20))
    x[:, :3] *= 3
    y = np.digitize((x[:, :3] ** 2).sum(1), [12, 30])
    return x @ np.linalg.qr(rng.normal(size=(20, 20)))[0], y


@pytest.mark.parametrize(
    ("made", "expected"), [(overlapping_gaussians, "lda"), (thresholds, "extra_trees"), (shells, "svm")]
)
def test_the_classifier_that_fits_the_classes_is_chosen(made, expected):
    x, y = made(np.random.default_rng(0))
    scene = make_scene(x, y, cols=50)
    config = configure("split={kind: random, train: 0.3}", "reduction={kind: none}")
    split = make_split(scene, config.split, seed=0)
    baseline = fit(scene, split, config)
    assert baseline.chosen.classifier == expected
    assert [each.classifier for each in baseline.candidates] == ["svm", "extra_trees", "lda"]
    best = max(each.accuracy for each in baseline.candidates)
    assert baseline.chosen.accuracy == best
    assert score(scene, split, baseline) == pytest.approx(best, abs=0.08)  # it is honest about the test pixels


@pytest.mark.parametrize("is_in_bands", [True, False])
def test_bands_or_components_are_chosen_by_what_they_show(is_in_bands):
    """The classes differ in a band of little variance, which few components leave out, or in the first component."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 900)
    x = rng.normal(size=(900, 16)) * np.geomspace(100, 1, 16)
    x[:, 15 if is_in_bands else 0] += (3 if is_in_bands else 250) * y
    scene = make_scene(x, y, cols=30)
    config = configure("split={kind: random, train: 0.1}", "reduction={kind: pca, components: 2, fit_on: train}",
                       "model={name: svm}")  # fmt: skip
    baseline = fit(scene, make_split(scene, config.split, seed=0), config)
    assert baseline.chosen.reduction == ("none" if is_in_bands else "pca")
    assert baseline.chosen.name.endswith("on 16 standardised bands" if is_in_bands else "on 2 PCA components")


def make_areas(num_areas: int) -> tuple[Scene, Split]:
    """Areas of 8 × 8 pixels, 8 apart; one of two is for testing.

    One band shows the class everywhere. The others have a mean for each class in each area.
    """
    rng = np.random.default_rng(0)
    side, rows, cols = 8, 16, 16 * num_areas
    y = rng.integers(0, 2, (rows, cols))
    row, col = np.indices(y.shape)
    x = 4 * rng.normal(size=(num_areas, 2, 10))[col // 16, y] + 0.3 * rng.normal(size=(rows, cols, 10))
    x[..., 0] = 4 * y + rng.normal(size=y.shape)
    scene = make_scene(x.reshape(-1, 10), y.ravel(), cols=cols)
    scene = replace(scene, labels=np.where((row < side) & (col % 16 < side), scene.labels, 0))
    pixels = np.argwhere(scene.labels > 0)
    is_test = pixels[:, 1] // 16 % 2 == 1
    return scene, Split(train=pixels[~is_test], val=pixels[:0], test=pixels[is_test])


SPATIAL = configure("split={kind: blocks, train: 0.5}", "reduction={kind: none}")


def test_on_a_spatial_split_whole_areas_are_held_out_which_changes_the_choice():
    """Among pixels of the same areas an SVM or trees know each area, which is of no use elsewhere."""
    scene, split = make_areas(24)
    grouped = fit(scene, split, SPATIAL)
    single = fit(scene, split, SPATIAL.model_copy(update={"split": RandomSplit(kind="random", train=0.5)}))
    assert grouped.chosen.classifier != single.chosen.classifier
    assert single.chosen.accuracy > 0.95
    assert score(scene, split, grouped) > score(scene, split, single)
    assert score(scene, split, grouped) == pytest.approx(grouped.chosen.accuracy, abs=0.1)
    assert score(scene, split, single) < single.chosen.accuracy - 0.1
    folds, notes = hold_out(scene, split, SPATIAL.split, seed=0)
    for inside, held in folds.parts:
        areas, others = (set(folds.pixels[part, 1] // 16) for part in (inside, held))
        assert not areas & others
    assert (len(folds.parts), grouped.notes, notes) == (3, (), ())


def test_a_spatial_split_with_a_single_training_area_holds_out_pixels_and_says_so():
    scene, split = make_areas(2)
    baseline = fit(scene, split, SPATIAL)
    assert len(baseline.notes) == 1
    assert "too few areas of the training set can be held out" in baseline.notes[0]
    assert baseline.chosen.accuracy is not None


def test_no_test_pixel_has_a_part_in_the_choice(small_scene):
    config = configure()
    split = split_at_random(small_scene, 0.3, seed=0)
    at_test, rng = tuple(split.test.T), np.random.default_rng(0)
    labels, cube = small_scene.labels.copy(), small_scene.cube.copy()
    labels[at_test] = rng.permutation(labels[at_test])
    cube[at_test] = rng.permutation(cube[at_test])
    one, other = fit(small_scene, split, config), fit(replace(small_scene, labels=labels, cube=cube), split, config)
    assert one.chosen == other.chosen
    assert one.candidates == other.candidates
    relabelled = fit(replace(small_scene, labels=labels), split, config)
    assert np.array_equal(one.labels, relabelled.labels)


def test_the_same_seed_gives_the_same_baseline_and_another_seed_other_folds(small_scene):
    split = split_at_random(small_scene, 0.3, seed=0)
    one, again, other = (fit(small_scene, split, configure(f"seed={seed}")) for seed in (1, 1, 2))
    assert (one.chosen, one.candidates, one.labels.tolist()) == (again.chosen, again.candidates, again.labels.tolist())
    assert one.candidates != other.candidates


@pytest.mark.parametrize("reduction", ["{kind: none}", "{kind: none, standardize: false}"])
def test_without_a_reduction_each_classifier_is_tried_once(small_scene, reduction):
    baseline = fit(small_scene, split_at_random(small_scene, 0.3, seed=0), configure(f"reduction={reduction}"))
    assert [(each.reduction, each.num_features) for each in baseline.candidates] == [("none", 20)] * 3


def test_the_baseline_is_the_classifier_that_its_name_and_parameters_say(small_scene):
    split = split_at_random(small_scene, 0.3, seed=0)
    baseline = fit(small_scene, split, configure("reduction={kind: pca, components: 13, fit_on: train}"))
    svm = next(each for each in baseline.candidates if each.classifier == "svm" and each.reduction == "none")
    known, labels = tuple(split.training_side.T), small_scene.labels
    x, asked = small_scene.cube[known].astype(float), small_scene.cube[tuple(split.test.T)].astype(float)
    svc = SVC(C=svm.parameters["penalty"], gamma=svm.parameters["gamma"])  # of standardised bands
    machine = make_pipeline(StandardScaler(), svc)
    lda = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    named = {"SVM on 20 standardised bands": machine, "shrinkage LDA on 20 standardised bands": lda}
    expected = named[baseline.chosen.name].fit(x, labels[known]).predict(asked)
    assert (baseline.labels == expected).mean() > 0.99  # float32
    values = f"(penalty = {svm.parameters['penalty']:.4g}, gamma = {svm.parameters['gamma']:.4g})"
    assert svm.description == f"SVM on 20 standardised bands {values}"


@pytest.mark.parametrize("per_class", [1, 2])
def test_the_baseline_does_without_tuning_where_no_class_has_a_pixel_for_each_fold(small_scene, per_class):
    split = split_at_random(small_scene, {"per_class": per_class}, seed=0)
    config = configure("reduction={kind: pca, components: 3, fit_on: scene}", "model={name: svm}")
    baseline = fit(small_scene, split, config)
    assert len(baseline.labels) == len(split.test)
    assert baseline.chosen.accuracy is None
    assert baseline.chosen.description == "SVM on 20 standardised bands (penalty = 100, gamma = 0.05)"
    assert "too few for cross-validation" in baseline.notes[0]


def test_a_class_with_fewer_pixels_than_folds_is_no_obstacle(small_scene):
    ids = small_scene.class_ids.tolist()
    counts = ", ".join(f"{label}: {count}" for label, count in zip(ids, (1, 2, *[9] * len(ids)), strict=False))
    config = configure(f"split={{kind: random, train: {{per_class: {{{counts}}}}}}}")
    split = make_split(small_scene, config.split, seed=0)
    baseline = fit(small_scene, split, config)
    assert all(0 < each.accuracy <= 1 for each in baseline.candidates)
    assert baseline.notes == ()


def test_a_training_side_of_one_class_calls_everything_it():
    labels = np.repeat([[1], [2]], 6, axis=1).astype(np.int32)
    scene = Scene("two rows", labels, {1: "a", 2: "b"}, cube=np.zeros((2, 6, 3), np.float32))
    first_row = np.argwhere(labels == 1)
    split = Split(
        train=first_row[:4], val=first_row[4:5], test=np.concatenate([first_row[5:], np.argwhere(labels == 2)])
    )
    baseline = fit_spectral_baseline(scene, split, np.zeros((2, 6, 3), np.float32), config=configure())
    assert evaluate_test(scene, split, baseline.labels).confusion.tolist() == [[1, 0], [6, 0]]
    assert baseline.chosen.description == "the only class of the training set"


@pytest.mark.exhaustive
@needs_real_scenes
@pytest.mark.parametrize(
    ("kind", "name", "accuracy"),
    [("pca", "SVM on 200 standardised bands", 0.804 - 0.007), ("mnf", "SVM on 20 MNF components", 0.878 - 0.003)],
)
def test_on_indian_pines_the_baseline_is_a_good_svm_within_seconds(kind, name, accuracy):
    """An SVM was measured elsewhere: 80.4 ± 0.7 % on the 200 standardised bands, 87.8 ± 0.3 on 20 MNF components."""
    folder = REAL_SCENES / "indian_pines"
    files = f"{{cube: {folder / 'Indian_pines_corrected.mat'}, labels: {folder / 'Indian_pines_gt.mat'}}}"
    reduction = f"reduction={{kind: {kind}, components: 20, fit_on: scene}}"
    config = load_config(ROOT / "configs" / "indian_pines_se.yaml", [f"scene={files}", reduction])
    scene = load_scene(config.scene)
    split = make_split(scene, config.split, seed=0)
    assert len(split.training_side) == 1025
    components = fit_reduction(scene.cube, config.reduction, train_pixels=split.train).apply(scene.cube)
    began = time.process_time()
    baseline = fit_spectral_baseline(scene, split, components, config=config)
    assert time.process_time() - began < 15
    assert baseline.chosen.name == name
    assert score(scene, split, baseline) > accuracy
