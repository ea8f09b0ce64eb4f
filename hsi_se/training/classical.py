"""Fits the SVM or random forest that a config may name instead of a network; both see single pixels."""

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from hsi_se.config.model import RandomForest, Svm
from hsi_se.errors import TrainingError
from hsi_se.evaluation.baselines import fit_svm
from hsi_se.models.classical import CentrePixelClassifier, ForestOfTrees, SupportVectorMachine


def fit_classical(
    settings: Svm | RandomForest,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    num_classes: int,
    patch_size: int,
    seed: int,
) -> CentrePixelClassifier:
    """Returns the fitted classifier as a module that maps patches `(n, 1, k, p, p)` to logits `(n, C)`.

    Args:
        x: `(n, k)` components of the training pixels.
        y: `(n,)` their classes, in 0..C-1.
        patch_size: p of the patches, which it classifies by their centre pixels.
        seed: of the cross-validation folds (SVM) or of the forest.

    Raises:
        TrainingError: the training set contains a single class.
    """
    if len(np.unique(y)) == 1:
        raise TrainingError(
            f"model.name = {settings.name}: the training set contains a single class; train on two or more"
        )
    if isinstance(settings, Svm):
        machine = fit_svm(x, y, seed=seed, c=settings.penalty, gamma=settings.gamma)
        return SupportVectorMachine.from_pipeline(machine, num_classes=num_classes, patch_size=patch_size)
    forest = RandomForestClassifier(
        n_estimators=settings.trees, min_samples_leaf=settings.min_leaf, random_state=seed % 2**32
    )
    return ForestOfTrees.from_forest(forest.fit(x, y), num_classes=num_classes, patch_size=patch_size)
