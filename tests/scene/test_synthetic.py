"""The synthetic scene is reproducible, complete, mixed at borders, and hard without context."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from hsi_se.scene.scene import UNLABELLED, Scene
from hsi_se.scene.synthetic import make_synthetic_scene

SEEDS = range(5)


def _mean_spectrum(scene: Scene, name: str) -> NDArray[np.float64]:
    (id_,) = (id_ for id_, known in scene.class_names.items() if known == name)
    mean: NDArray[np.float64] = scene.cube[scene.labels == id_].mean(axis=0)
    return mean


def _at(scene: Scene, spectrum: NDArray[np.float64], nm: float) -> float:
    assert scene.wavelengths_nm is not None
    return float(np.interp(nm, scene.wavelengths_nm, spectrum))


def _svm_accuracy(features: NDArray[np.float64], labels: NDArray[np.int32]) -> float:
    train, test, train_labels, test_labels = train_test_split(
        features, labels, train_size=0.1, stratify=labels, random_state=0
    )
    svm = make_pipeline(StandardScaler(), SVC(C=100.0)).fit(train, train_labels)
    return float(svm.score(test, test_labels))


def _window_mean(cube: NDArray[np.generic], size: int) -> NDArray[np.float64]:
    margin = size // 2
    padded = np.pad(cube, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    means: NDArray[np.float64] = windows.mean(axis=(-2, -1))
    return means


def test_same_seed_gives_the_same_scene() -> None:
    first, second = make_synthetic_scene(seed=3), make_synthetic_scene(seed=3)
    np.testing.assert_array_equal(first.cube, second.cube)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_another_seed_gives_another_scene() -> None:
    first, second = make_synthetic_scene(seed=0), make_synthetic_scene(seed=1)
    assert (first.labels != second.labels).mean() > 0.5
    assert (first.cube != second.cube).mean() > 0.9


def test_default_scene_is_counts_with_a_complete_description() -> None:
    scene = make_synthetic_scene()
    assert scene.cube.shape == (72, 72, 64)
    assert scene.cube.dtype == np.uint16
    assert scene.labels.dtype == np.int32
    assert scene.wavelengths_nm is not None
    assert scene.natural_colour is not None
    assert (scene.wavelengths_nm[0], scene.wavelengths_nm[-1]) == (400.0, 2500.0)
    spacing_nm = 2100 / 63
    for band, nm in zip(scene.natural_colour, (640, 550, 460), strict=True):
        assert abs(scene.wavelengths_nm[band] - nm) <= spacing_nm / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_rare_class_has_about_twenty_pixels_inside_one_field(seed: int) -> None:
    scene = make_synthetic_scene(seed=seed)
    rare = scene.labels == scene.num_classes
    assert 15 <= rare.sum() <= 25
    assert rare.sum() < 0.2 * np.bincount(scene.labels.ravel())[1:-1].min()
    rows, cols = np.nonzero(rare)
    around = scene.labels[rows.min() - 1 : rows.max() + 2, cols.min() - 1 : cols.max() + 2]
    assert len(set(around.ravel()) - {scene.num_classes}) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_unlabelled_ground_is_between_5_and_40_percent(seed: int) -> None:
    assert 0.05 < (make_synthetic_scene(seed=seed).labels == UNLABELLED).mean() < 0.40


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("rows", "cols", "bands"), [(24, 24, 16), (24, 61, 20), (90, 40, 30), (72, 72, 64)])
def test_every_class_is_present_at_every_size(seed: int, rows: int, cols: int, bands: int) -> None:
    scene = make_synthetic_scene(seed=seed, rows=rows, cols=cols, bands=bands)
    assert scene.cube.shape == (rows, cols, bands)
    assert scene.class_ids.tolist() == list(range(1, 10)) == list(scene.class_names)
    assert np.bincount(scene.labels.ravel()).min() >= 4


def test_border_pixels_lie_between_the_two_fields() -> None:
    """Position along the line from the near field's mean (0) to the far field's (1), both local."""
    scene = make_synthetic_scene(seed=0)
    cube, labels = scene.cube.astype(float), scene.labels
    at_border, inside = [], []
    for image, ids in ((cube, labels), (cube.transpose(1, 0, 2), labels.T)):
        for col in range(4, ids.shape[1] - 4):
            near, far = ids[:, col - 4 : col], ids[:, col : col + 4]
            straight = (near == near[:, :1]).all(1) & (far == far[:, :1]).all(1)
            rows = straight & (near[:, 0] != far[:, 0]) & (near[:, 0] > 0) & (far[:, 0] > 0)
            if rows.sum() < 4:  # too short a border for a steady local mean
                continue
            strip = image[rows, col - 4 : col + 4].mean(axis=0)
            start, end = strip[:2].mean(axis=0), strip[-2:].mean(axis=0)
            way = end - start
            position = (strip - start) @ way / (way @ way)
            at_border += [position[3], 1 - position[4]]
            inside += [position[2], 1 - position[5]]
    assert len(at_border) >= 8
    assert 0.10 < np.mean(at_border) < 0.45
    assert abs(np.mean(inside)) < 0.06


@pytest.mark.parametrize("name", ["pasture", "woodland", "oats"])
def test_chlorophyll_darkens_vegetation_at_670_nm(name: str) -> None:
    scene = make_synthetic_scene(seed=0)
    spectrum = _mean_spectrum(scene, name)
    red = _at(scene, spectrum, 670)
    assert red < 0.9 * _at(scene, spectrum, 550)
    assert red < 0.5 * _at(scene, spectrum, 800)


def test_leaf_water_darkens_woodland_at_1450_and_1940_nm() -> None:
    scene = make_synthetic_scene(seed=0)
    spectrum = _mean_spectrum(scene, "woodland")
    assert _at(scene, spectrum, 1450) < 0.7 * _at(scene, spectrum, 1250)
    assert _at(scene, spectrum, 1940) < 0.6 * _at(scene, spectrum, 1650)


def test_tillage_variants_of_corn_are_closer_than_corn_and_woodland() -> None:
    scene = make_synthetic_scene(seed=0)
    none, reduced, clean, woodland = (
        _mean_spectrum(scene, name)
        for name in ("corn, no tillage", "corn, reduced tillage", "corn, clean tillage", "woodland")
    )
    far = np.linalg.norm(reduced - woodland)
    assert np.linalg.norm(reduced - none) < far / 3
    assert np.linalg.norm(reduced - clean) < far / 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_per_pixel_svm_stays_under_ninety_percent(seed: int) -> None:
    scene = make_synthetic_scene(seed=seed)
    labelled = scene.labels != UNLABELLED
    accuracy = _svm_accuracy(scene.cube[labelled].astype(float), scene.labels[labelled])
    assert 0.70 < accuracy < 0.90


def test_seven_by_seven_mean_lifts_the_svm_above_ninety_three_percent() -> None:
    scene = make_synthetic_scene(seed=0)
    labelled = scene.labels != UNLABELLED
    assert _svm_accuracy(_window_mean(scene.cube, 7)[labelled], scene.labels[labelled]) > 0.93
