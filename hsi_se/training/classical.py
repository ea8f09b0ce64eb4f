"""Fits the pixel classifier that a config may name instead of a network."""

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.model import Lda, PixelClassifier, Svm
from hsi_se.errors import TrainingError
from hsi_se.evaluation.baselines import choose_parameters, fit_pixel_classifier
from hsi_se.models.classical import CentrePixelClassifier, find_class
from hsi_se.sampling.folds import Folds


def fit_classical(
    settings: PixelClassifier, x: NDArray[np.float32], folds: Folds, *, num_classes: int, patch_size: int, seed: int
) -> CentrePixelClassifier:
    """Returns the fitted classifier as a module that maps patches `(n, 1, k, p, p)` to logits `(n, C)`.

    It classifies patches by their centre pixels. `x` are the components `(n, k)` of the pixels of `folds`, the
    training set; the parts of the folds are used to tune an SVM. TrainingError if the training set contains a single
    class, or LDA cannot estimate a covariance.
    """
    counts = np.bincount(folds.classes)
    if np.count_nonzero(counts) == 1:
        problem = "the training set contains a single class; train on two or more"
        raise TrainingError(f"model.name = {settings.name}: {problem}")
    if isinstance(settings, Lda) and counts.max() == 1:
        raise TrainingError(
            "model.name = lda: every class has a single training pixel, so the spectra of a class have no "
            "covariance; raise split.train, or use model.name: svm"
        )
    if isinstance(settings, Svm) and None in (settings.penalty, settings.gamma):
        settings, _ = choose_parameters(settings, x, folds, seed=seed)
    fitted = fit_pixel_classifier(settings, x, folds.classes, seed=seed)
    return find_class(settings).of(fitted, num_classes=num_classes, patch_size=patch_size)
