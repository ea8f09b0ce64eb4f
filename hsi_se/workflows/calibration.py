"""Finds the temperature of a run's probabilities after training: on validation pixels or by cross-fitting."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.model import PixelClassifier
from hsi_se.errors import DivergedError
from hsi_se.evaluation.confidence import TemperatureScaling, find_lack, fit_scaling
from hsi_se.prediction.bundled import predict_bundled
from hsi_se.progress import Observer, Silent
from hsi_se.runs.bundle import ModelBundle
from hsi_se.sampling.folds import Folds, divide_into_folds, is_like_test
from hsi_se.sampling.splits import Pixels
from hsi_se.workflows.preparation import Prepared

_MANY = 100  # validation pixels that `auto` relies on; their accuracy's standard error is at most 5 points


def calibrate(bundle: ModelBundle, setting: Prepared, *, epochs: int, observer: Observer) -> TemperatureScaling:
    """Returns the temperature of a trained model's probabilities, as `prediction.calibration` asks.

    Cross-fitting trains a classifier with the same settings on each fold's fit (see `sampling.folds`). It predicts the
    scene as the run's own does, with symmetries and smoothing, and the logits of the pixels that it was not trained on
    are kept. The reduction is the run's: it has seen the spectra of those pixels but not their labels.

    Args:
        bundle, setting: the trained model and the input of its training.
        epochs: the epoch that the run's network was kept at. The other networks are trained for as many.
        observer: also receives a note if the probabilities are not calibrated.
    """
    config, split = setting.config, setting.split
    kind = config.prediction.calibration
    if kind == "none":
        lack = "prediction.calibration is none, the default of ablations, folds and gap; train with auto"
        return TemperatureScaling(lack=lack)
    if kind == "auto":
        is_enough = len(split.val) >= _MANY and not isinstance(config.model, PixelClassifier)
        is_like = is_enough and is_like_test(split.val, split, config.split, apart=split.train)
        kind = "validation" if is_like else "cross-fit"
    folds = divide_into_folds(setting.scene, split, config.split, seed=config.seed)
    if kind == "cross-fit":
        found = _cross_fit(bundle, setting, folds, epochs=epochs, observer=observer)
    else:
        truth, groups = (values[len(split.train) :] for values in (folds.classes, folds.groups))
        logits = predict_own_pixels(bundle, setting, split.val, observer=_Named(observer, "calibration"))
        found = fit_scaling(logits, truth, source=kind, groups=groups)
    if not found.is_scaled:
        observer.note(f"the probabilities are {found.about}")
    return found


def _cross_fit(
    bundle: ModelBundle, setting: Prepared, folds: Folds, *, epochs: int, observer: Observer
) -> TemperatureScaling:
    number_of = np.full(len(folds.pixels), -1)  # the fold that predicts each pixel
    for number, (_, held) in enumerate(folds.parts):
        number_of[held] = number
    usable = number_of >= 0
    groups = folds.groups[usable]
    found = TemperatureScaling(source="cross-fit", num_pixels=len(groups), num_groups=len(np.unique(groups)))
    lack = find_lack(found, num_wrong=1)  # whatever will be predicted
    if len(folds.parts) < 2:
        lack = (
            "the training pixels lie too close together to train on some of them and predict others that are "
            "as far away as test pixels; label pixels of every class in more areas"
        )
    if lack:
        return replace(found, lack=lack)
    logits = np.empty((len(usable), setting.scene.num_classes), dtype=np.float32)
    for number, (inside, held) in enumerate(folds.parts):
        name = f"calibration: fold {number + 1} of {len(folds.parts)}"
        named, seed = _Named(observer, name), (setting.config.seed + 1 + number) % 2**63
        try:
            model = setting.fit_again(folds.pixels[inside], epochs=epochs, seed=seed, observer=named)
        except DivergedError:
            return replace(found, lack=f"{name}: training diverged; lower train.learning_rate")
        packed = setting.pack(model, versions=bundle.facts.versions)
        logits[held] = predict_own_pixels(packed, setting, folds.pixels[held], observer=named)
    truth = folds.classes[usable]
    return fit_scaling(logits[usable], truth, source="cross-fit", groups=groups, folds=number_of[usable])


def predict_own_pixels(
    bundle: ModelBundle, setting: Prepared, pixels: Pixels, *, observer: Observer
) -> NDArray[np.float32]:
    """Returns the logits `(n, C)` of pixels of the scene that a classifier was trained on, as `eval` computes them."""
    scene = setting.scene
    return predict_bundled(
        bundle, setting.components, pixels,
        missing=~scene.valid, windows=scene.windows, device=setting.patches.device, observer=observer,
    )[0]  # fmt: skip


class _Named(Silent):
    """An observer that gives every task the same name and keeps back epochs, as they are not the run's."""

    def __init__(self, observer: Observer, name: str) -> None:
        self._observer, self._name = observer, name

    def advance(self, count: int) -> None:
        self._observer.advance(count)

    def start(self, task: str, *, total: int, unit: str) -> None:
        del task
        self._observer.start(self._name, total=total, unit=unit)

    def note(self, text: str) -> None:
        self._observer.note(f"{self._name}: {text}")
