"""Assesses one run, or the folds of one draw: accuracy, baselines, leakage, calibration, rejection and class areas."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.experiment import Config
from hsi_se.evaluation.area import AreaEstimate, estimate_area
from hsi_se.evaluation.audit import SplitAudit, audit_split
from hsi_se.evaluation.baselines import SpectralBaseline, fit_spectral_baseline, predict_by_location
from hsi_se.evaluation.confidence import (
    Rejection,
    Reliability,
    TemperatureScaling,
    describe_calibration,
    measure_calibration,
    measure_rejection,
    to_probabilities,
)
from hsi_se.evaluation.metrics import Evaluation, evaluate_labels, evaluate_test
from hsi_se.evaluation.verdict import Verdict, group_test_pixels, reach_verdict
from hsi_se.sampling.splits import Pixels, Split
from hsi_se.scene.cube import Cube
from hsi_se.scene.scene import Scene
from hsi_se.system.forms import Form

TestLabels = Annotated[NDArray[np.int32], Form("test", low=1)]
REPORTED_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)


@dataclass(frozen=True, eq=False)
class TestPixels:
    """What was predicted at each test pixel, in the order of the split: all that its assessment is computed from."""

    __test__ = False  # not a test of pytest's

    pixels: Annotated[Pixels, Form("test 2", low=0)]  # of (row, col)
    truth: TestLabels
    predicted: TestLabels
    unsmoothed: TestLabels  # before `prediction.smoothing`
    by_location: TestLabels  # of the location floor
    by_spectrum: TestLabels  # of the spectral baseline
    logits: Annotated[NDArray[np.float32], Form("test classes")]
    temperature: Annotated[NDArray[np.float64], Form("test", low=np.nextafter(0, 1))]  # of the run that tested it
    groups: Annotated[NDArray[np.int64], Form("test")]  # see `verdict.group_test_pixels`

    @classmethod
    def join(cls, parts: Sequence["TestPixels"]) -> "TestPixels":
        """Returns the test pixels of several runs together."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True, eq=False)
class Assessment:
    """The results of one run on its test pixels, with the baselines needed to interpret them."""

    evaluation: Evaluation
    unsmoothed: Evaluation | None  # before `prediction.smoothing`; None without
    audit: SplitAudit
    spectral_baseline: Evaluation  # of the best classifier of single pixels
    machine: SpectralBaseline
    scaling: TemperatureScaling
    calibration: Reliability  # before temperature scaling
    calibration_scaled: Reliability
    rejection: Rejection
    area: AreaEstimate
    verdict: Verdict
    tested: TestPixels
    folds: tuple[Evaluation, ...] = ()  # of each fold, if several were pooled

    @property
    def about_certainty(self) -> str:
        """Returns how well the network's confidence is calibrated, in words."""
        return describe_calibration(self.calibration.ece, self.calibration_scaled.ece, scaling=self.scaling)


def assess(
    truth: Scene,
    split: Split,
    *,
    logits: NDArray[np.float32],
    unsmoothed: NDArray[np.float32],
    mapped_pixels: NDArray[np.integer],
    components: Cube,
    config: Config,
    scaling: TemperatureScaling,
    pixel_area_m2: float | None = None,
    machine: SpectralBaseline | None = None,
) -> Assessment:
    """Returns the assessment of a network's logits on the test pixels.

    Args:
        truth: the scene with the labels used by the split (`Split.relabel`).
        logits, unsmoothed: `(n, C)` network output at the test pixels after and before `prediction.smoothing`.
        mapped_pixels: `(C,)` pixels of each class on the map.
        components: `(rows, cols, k)` the network's input, before patches are cut.
        pixel_area_m2: area of a pixel on the ground in m², if known.
        machine: the spectral baseline of this split and these components, if it has been fitted already.
    """
    if machine is None or len(machine.labels) != len(split.test):
        machine = fit_spectral_baseline(truth, split, components, config=config)
    at_test = split.test[:, 0], split.test[:, 1]
    groups, unit = group_test_pixels(truth, split, config)
    tested = TestPixels(
        pixels=split.test,
        truth=truth.labels[at_test],
        predicted=truth.class_ids[logits.argmax(axis=1)],
        unsmoothed=truth.class_ids[unsmoothed.argmax(axis=1)],
        by_location=predict_by_location(truth, split),
        by_spectrum=machine.labels,
        logits=logits,
        temperature=np.full(len(split.test), scaling.temperature),
        groups=groups,
    )
    return assess_pixels(
        tested,
        audit=audit_split(truth, split, config, location_floor=evaluate_test(truth, split, tested.by_location)),
        unit=unit,
        config=config,
        scaling=scaling,
        machine=machine,
        mapped_pixels=mapped_pixels,
        pixel_area_m2=pixel_area_m2,
    )


def assess_pixels(
    tested: TestPixels,
    *,
    audit: SplitAudit,
    unit: str,
    config: Config,
    scaling: TemperatureScaling,
    machine: SpectralBaseline,
    mapped_pixels: NDArray[np.integer],
    pixel_area_m2: float | None,
) -> Assessment:
    """Returns the assessment of test pixels, be they of one run or of all folds.

    `unit` is what `tested.groups` are, such as `fields`; `mapped_pixels` `(C,)` are those of each class on the map.
    """
    ids, names = audit.location_floor.class_ids, audit.location_floor.class_names

    def evaluate(predicted: NDArray[np.int32]) -> Evaluation:
        return evaluate_labels(tested.truth, predicted, class_ids=ids, class_names=names)

    true_classes = np.searchsorted(ids, tested.truth)
    evaluation, is_correct = evaluate(tested.predicted), tested.predicted == tested.truth
    scaled = to_probabilities(tested.logits / tested.temperature[:, None])
    return Assessment(
        evaluation=evaluation,
        unsmoothed=None if config.prediction.smoothing is None else evaluate(tested.unsmoothed),
        audit=audit,
        spectral_baseline=evaluate(tested.by_spectrum),
        machine=machine,
        scaling=scaling,
        calibration=measure_calibration(to_probabilities(tested.logits), true_classes),
        calibration_scaled=measure_calibration(scaled, true_classes),
        rejection=measure_rejection(scaled.max(axis=1), is_correct),
        area=estimate_area(evaluation.confusion, mapped_pixels=mapped_pixels, pixel_area_m2=pixel_area_m2),
        verdict=reach_verdict(
            is_correct,
            floor=tested.by_location == tested.truth,
            baseline=tested.by_spectrum == tested.truth,
            groups=(tested.groups, unit),
            chosen=machine.chosen,
            config=config,
            leaking=audit.leakage.test_patches_with_train_pixels,
        ),
        tested=tested,
    )
