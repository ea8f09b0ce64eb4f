"""What a pixel's place alone, or its spectrum alone, would reach: the two numbers a patch must beat."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from hsi_se.evaluation.metrics import Evaluation, evaluate_labels
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import GroundTruth
from hsi_se.training.spectral import fit_svm


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


def _evaluate(truth: GroundTruth, split: Split, predicted: NDArray[np.int32]) -> Evaluation:
    ids = truth.class_ids.tolist()
    names = [truth.class_names[label] for label in ids]
    true = truth.labels[split.test[:, 0], split.test[:, 1]]
    return evaluate_labels(true, predicted, class_ids=ids, class_names=names)
