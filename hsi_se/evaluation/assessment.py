"""Assesses one run: accuracy, baselines, leakage, calibration, rejection and class areas."""

from dataclasses import dataclass

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
from hsi_se.evaluation.metrics import Evaluation, evaluate_test
from hsi_se.evaluation.verdict import Verdict, group_test_pixels, reach_verdict
from hsi_se.sampling.splits import Split
from hsi_se.scene.scene import Scene

REPORTED_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)


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
    components: NDArray[np.float32],
    config: Config,
    scaling: TemperatureScaling,
    pixel_area_m2: float | None = None,
    machine: SpectralBaseline | None = None,
) -> Assessment:
    """Returns the assessment of a network's logits on the test pixels.

    Args:
        truth: the scene with the labels used by the split (`Split.relabel`).
        logits, unsmoothed: `(rows, cols, C)` network output after and before `prediction.smoothing`.
        components: `(rows, cols, k)` the network's input, before patches are cut.
        pixel_area_m2: area of a pixel on the ground in m², if known.
        machine: the spectral baseline of this split and these components, if it has been fitted already.
    """
    machine = machine or fit_spectral_baseline(truth, split, components, config=config)
    by_location = predict_by_location(truth, split)
    at_test = split.test[:, 0], split.test[:, 1]
    predicted, before = logits.argmax(axis=2), unsmoothed[at_test].argmax(axis=1)
    evaluation = evaluate_test(truth, split, truth.class_ids[predicted[at_test]])
    audit = audit_split(truth, split, config, location_floor=evaluate_test(truth, split, by_location))
    true_labels = truth.labels[at_test]
    true_classes = np.searchsorted(truth.class_ids, true_labels)
    is_correct = predicted[at_test] == true_classes
    scaled = to_probabilities(logits[at_test], temperature=scaling.temperature)
    smooths = config.prediction.smoothing is not None
    return Assessment(
        evaluation=evaluation,
        unsmoothed=evaluate_test(truth, split, truth.class_ids[before]) if smooths else None,
        audit=audit,
        spectral_baseline=evaluate_test(truth, split, machine.labels),
        machine=machine,
        scaling=scaling,
        calibration=measure_calibration(to_probabilities(logits[at_test]), true_classes),
        calibration_scaled=measure_calibration(scaled, true_classes),
        rejection=measure_rejection(scaled.max(axis=1), is_correct),
        area=estimate_area(
            evaluation.confusion,
            mapped_pixels=np.bincount(predicted[truth.valid], minlength=truth.num_classes),
            pixel_area_m2=pixel_area_m2,
        ),
        verdict=reach_verdict(
            is_correct,
            floor=by_location == true_labels,
            baseline=machine.labels == true_labels,
            groups=group_test_pixels(truth, split, config),
            chosen=machine.chosen,
            config=config,
            leaking=audit.leakage.test_patches_with_train_pixels,
        ),
    )
