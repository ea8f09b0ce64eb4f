"""Fits two baselines for the network: one uses only a pixel's position, one only its spectrum."""

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth


def predict_by_location(truth: GroundTruth, split: Split) -> NDArray[np.int32]:
    """Returns the labels `(n,)` that the location floor predicts at the test pixels.

    It is a 1-nearest-neighbour classifier on (row, col) alone, fitted on the training and validation pixels,
    and sees no spectra. `truth` holds the labels used by the split (`Split.relabel`).
    """
    known = split.training_side
    neighbour = KNeighborsClassifier(n_neighbors=1).fit(known, truth.labels[known[:, 0], known[:, 1]])
    return np.asarray(neighbour.predict(split.test))


@dataclass(frozen=True, eq=False)
class SpectralBaseline:
    """Labels `(n,)` that the support vector machine predicts at the test pixels, and its tuned parameters."""

    labels: NDArray[np.int32]
    c: float
    gamma: float


def fit_spectral_baseline(
    truth: GroundTruth, split: Split, components: NDArray[np.float32], *, seed: int
) -> SpectralBaseline:
    """Returns the predictions of an RBF support vector machine on the centre pixels alone.

    Its input is the components of each pixel, without its neighbours. It is scaled, tuned (three-fold
    cross-validation over C and gamma) and fitted on the training and validation pixels. If these
    contain a single class, every test pixel is predicted as that class, and c and gamma are 0.

    Args:
        truth: the labels used by the split (`Split.relabel`).
        components: `(rows, cols, k)` the network's input, before patches are cut.
        seed: as for `fit_svm`.
    """
    known = split.training_side
    x, y = components[known[:, 0], known[:, 1]], truth.labels[known[:, 0], known[:, 1]]
    if len(np.unique(y)) == 1:
        return SpectralBaseline(np.full(len(split.test), y[0]), 0.0, 0.0)
    machine = fit_svm(x, y, seed=seed)
    labels = machine.predict(components[split.test[:, 0], split.test[:, 1]])
    return SpectralBaseline(labels, machine["svc"].C, machine["svc"].gamma)


# The powers usually searched in SVM papers of this field; gamma is relative to 1 / components.
_GRID_C = (1.0, 10.0, 100.0, 1000.0)
_GRID_GAMMA = (0.25, 1.0, 4.0)
_MAX_TUNING_PIXELS = 2000  # a larger set is subsampled, stratified by class
_FOLDS = 3


def fit_svm(
    x: NDArray[np.float32], y: NDArray[np.integer], *, seed: int, c: float | None = None, gamma: float | None = None
) -> Pipeline:
    """Fits an RBF support vector machine on inputs scaled to zero mean and unit variance.

    Parameters that are not given are tuned by three-fold cross-validation on at most about 2000 pixels.

    Args:
        x: `(n, k)` spectra or components.
        y: `(n,)` classes; at least two different ones.
        seed: determines the folds, and the pixels used for tuning when there are more than 2000.
        c: the penalty C; tuned if None.
        gamma: γ of the kernel exp(-γ |x - x'|²) on scaled components; tuned if None.
    """
    if c is None or gamma is None:
        c, gamma = _tune(x, y, seed=seed, c=c, gamma=gamma)
    return make_pipeline(StandardScaler(), SVC(C=c, gamma=gamma)).fit(x, y)


def _tune(
    x: NDArray[np.float32], y: NDArray[np.integer], *, seed: int, c: float | None, gamma: float | None
) -> tuple[float, float]:
    """C and gamma; 100 and 1 / components if fewer than two classes have a pixel for every fold."""
    num_components = x.shape[1]
    classes, counts = np.unique(y, return_counts=True)
    if (counts >= _FOLDS).sum() < 2:
        return c or _GRID_C[len(_GRID_C) // 2], gamma or 1 / num_components
    tuned_on = np.random.default_rng(seed).permutation(len(x))
    if len(x) > _MAX_TUNING_PIXELS:
        of_class = [tuned_on[y[tuned_on] == label] for label in classes]
        share = _MAX_TUNING_PIXELS / len(x)
        tuned_on = np.concatenate([some[: max(_FOLDS, round(share * len(some)))] for some in of_class])
    gammas = [gamma] if gamma else [factor / num_components for factor in _GRID_GAMMA]
    grid = list(itertools.product([c] if c else _GRID_C, gammas))
    x, y = x[tuned_on], y[tuned_on]

    def score(fit: NDArray[np.intp], check: NDArray[np.intp]) -> list[float]:
        # As by scikit-learn's GridSearchCV, but the spectra are scaled once per fold, not once per fit.
        scaler = StandardScaler()
        scaled, held_out = scaler.fit_transform(x[fit]), scaler.transform(x[check])
        return [SVC(C=c, gamma=gamma).fit(scaled, y[fit]).score(held_out, y[check]) for c, gamma in grid]

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer pixels than folds is missing from some folds, but not from the final fit.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        scores = np.stack([score(fit, check) for fit, check in folds.split(x, y)], axis=1)
    return grid[int(np.average(scores, axis=1).argmax())]
