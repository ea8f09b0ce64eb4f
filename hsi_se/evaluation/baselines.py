"""What row and column alone, or single spectra alone, would score: the two results a network must beat."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from hsi_se.evaluation.metrics import Evaluation, evaluate_labels
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth


def evaluate_location_floor(truth: GroundTruth, split: Split) -> Evaluation:
    """Returns the accuracies of 1-nearest-neighbour on (row, col) alone.

    It is fitted on the training side, validation pixels included, and sees no spectrum.

    Args:
        truth: the labels that the split goes by (`Split.relabel`).
        split: where they are known, and where they are asked for.
    """
    known = split.training_side
    neighbour = KNeighborsClassifier(n_neighbors=1).fit(known, truth.labels[known[:, 0], known[:, 1]])
    return _evaluate(truth, split, neighbour.predict(split.test))


@dataclass(frozen=True)
class SpectralBaseline:
    """The accuracies of the support vector machine, and the parameters that tuning chose."""

    evaluation: Evaluation
    c: float
    gamma: float


def evaluate_spectral_baseline(
    truth: GroundTruth, split: Split, components: NDArray[np.float32], *, seed: int
) -> SpectralBaseline:
    """Returns the accuracies of an RBF support vector machine on the centre pixels alone.

    It is scaled, tuned (three-fold cross-validation over C and gamma) and fitted on the training
    side, and sees each pixel's components without its neighbours. Where the training side has a
    single class there is nothing to fit: every pixel is called it, and c and gamma are 0.

    Args:
        truth: the labels that the split goes by (`Split.relabel`).
        split: where they are known, and where they are asked for.
        components: `(rows, cols, k)` what the network sees, before it is cut into patches.
        seed: decides the folds, and the pixels that a large training side is tuned on.
    """
    known = split.training_side
    x, y = components[known[:, 0], known[:, 1]], truth.labels[known[:, 0], known[:, 1]]
    if len(np.unique(y)) == 1:
        return SpectralBaseline(_evaluate(truth, split, np.full(len(split.test), y[0])), 0.0, 0.0)
    machine = fit_svm(x, y, seed=seed)
    svc = machine["svc"]
    predicted = machine.predict(components[split.test[:, 0], split.test[:, 1]])
    return SpectralBaseline(_evaluate(truth, split, predicted), svc.C, svc.gamma)


@dataclass(frozen=True, eq=False)
class Baselines:
    """The two results a network must beat; they depend on the split and the reduction, not on the network."""

    location_floor: Evaluation
    spectral: SpectralBaseline


def evaluate_baselines(
    truth: GroundTruth, split: Split, components: NDArray[np.float32], *, seed: int
) -> Baselines:
    """Returns the location floor and the spectral baseline; arguments as in `evaluate_spectral_baseline`."""
    return Baselines(
        location_floor=evaluate_location_floor(truth, split),
        spectral=evaluate_spectral_baseline(truth, split, components, seed=seed),
    )


def _evaluate(truth: GroundTruth, split: Split, predicted: NDArray[np.int32]) -> Evaluation:
    ids = truth.class_ids.tolist()
    names = [truth.class_names[label] for label in ids]
    true = truth.labels[split.test[:, 0], split.test[:, 1]]
    return evaluate_labels(true, predicted, class_ids=ids, class_names=names)


# Powers that the field's SVM papers search; gamma is relative to 1 / components.
_GRID_C = (1.0, 10.0, 100.0, 1000.0)
_GRID_GAMMA = (0.25, 1.0, 4.0)
_MAX_TUNING_PIXELS = 2000  # the grid is searched on a stratified part of a larger training side
_FOLDS = 3


def fit_svm(
    x: NDArray[np.float32],
    y: NDArray[np.integer],
    *,
    seed: int,
    c: float | None = None,
    gamma: float | None = None,
) -> Pipeline:
    """Returns an RBF support vector machine behind a scaler to zero mean and unit variance.

    What is not given is tuned by three-fold cross-validation, on 2000 pixels at most.

    Args:
        x: `(n, k)` spectra.
        y: `(n,)` classes, at least two of them.
        seed: decides the folds, and the pixels that a large training side is tuned on.
        c: the penalty C, and
        gamma: of the kernel exp(-γ |x - x'|²) on scaled components; tuned where None.
    """
    if c is None or gamma is None:
        c, gamma = _tune(x, y, seed=seed, c=c, gamma=gamma)
    return make_pipeline(StandardScaler(), SVC(C=c, gamma=gamma)).fit(x, y)


def _tune(
    x: NDArray[np.float32], y: NDArray[np.integer], *, seed: int, c: float | None, gamma: float | None
) -> tuple[float, float]:
    """C and gamma by cross-validation; the middle of the grid where two classes do not reach every fold."""
    num_components = x.shape[1]
    classes, counts = np.unique(y, return_counts=True)
    if (counts >= _FOLDS).sum() < 2:
        return c or _GRID_C[len(_GRID_C) // 2], gamma or 1 / num_components
    tuned_on = np.random.default_rng(seed).permutation(len(x))
    if len(x) > _MAX_TUNING_PIXELS:
        of_class = [tuned_on[y[tuned_on] == label] for label in classes]
        share = _MAX_TUNING_PIXELS / len(x)
        tuned_on = np.concatenate([some[: max(_FOLDS, round(share * len(some)))] for some in of_class])
    grid = {
        "svc__C": [c] if c else list(_GRID_C),
        "svc__gamma": [gamma] if gamma else [factor / num_components for factor in _GRID_GAMMA],
    }
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    search = GridSearchCV(make_pipeline(StandardScaler(), SVC()), grid, cv=folds, refit=False)
    with warnings.catch_warnings():
        # A class smaller than the folds is missing from some; the fit on all pixels still has it.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        search.fit(x[tuned_on], y[tuned_on])
    return float(search.best_params_["svc__C"]), float(search.best_params_["svc__gamma"])
