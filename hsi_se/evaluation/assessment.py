"""Everything that is said of one run: its accuracies, what they must beat, and how sure the network is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.config.experiment import Config
from hsi_se.evaluation.area import AREA_CAVEAT, AreaEstimate, estimate_area
from hsi_se.evaluation.audit import SplitAudit, accuracies, audit_split
from hsi_se.evaluation.baselines import Baselines, SpectralBaseline, evaluate_baselines
from hsi_se.evaluation.confidence import (
    Rejection,
    Reliability,
    describe_calibration,
    fit_temperature,
    is_scaled,
    measure_calibration,
    measure_rejection,
    to_probabilities,
)
from hsi_se.evaluation.metrics import Evaluation, evaluate_labels, number_or_none
from hsi_se.sampling.splits import Pixels, Split
from hsi_se.scene.scene import GroundTruth

REPORTED_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)


@dataclass(frozen=True, eq=False)
class Assessment:
    """One run on its test pixels, and beside it what a reader needs to weigh it.

    Attributes:
        evaluation: the network's accuracies.
        unsmoothed: the same before `prediction.smoothing`; None where the config asks for none.
        audit: the split's leakage and location floor.
        spectral_baseline: a support vector machine on the centre pixels.
        temperature: fitted on the validation pixels; 1 leaves the network's confidence as it is.
        calibration, calibration_scaled: reliability on the test pixels, before and after it.
        rejection: accuracy of the test pixels that are left when the least certain are rejected.
        area: the area of each class, adjusted for the map's errors.
    """

    evaluation: Evaluation
    unsmoothed: Evaluation | None
    audit: SplitAudit
    spectral_baseline: SpectralBaseline
    temperature: float
    calibration: Reliability
    calibration_scaled: Reliability
    rejection: Rejection
    area: AreaEstimate

    @property
    def clears_floor(self) -> bool:
        return self.evaluation.overall_accuracy > self.audit.location_floor.overall_accuracy

    @property
    def verdict(self) -> str:
        """What may be concluded, in words."""
        network, floor = self.evaluation.overall_accuracy, self.audit.location_floor.overall_accuracy
        leaking = self.audit.leakage.test_patches_with_train_pixels
        if not self.clears_floor:
            found = (
                f"The network does not clear the location floor ({100 * network:.2f} % against "
                f"{100 * floor:.2f} %): knowing only row and column does as well, so nothing has been shown "
                "about the spectra."
            )
        else:
            found = (
                f"The network is {100 * (network - floor):.2f} points above the location floor "
                f"of {100 * floor:.2f} %."
            )
        if leaking > 0:
            return (
                f"{found} {100 * leaking:.1f} % of the test patches contain pixels of the training side: "
                "the accuracy says how well a map is completed between known pixels, not how well new "
                "ground is classified."
            )
        return f"{found} No test patch contains a pixel of the training side."

    @property
    def about_certainty(self) -> str:
        """How far the network's confidence may be believed, in words."""
        return describe_calibration(
            self.calibration.ece,
            self.calibration_scaled.ece,
            temperature=self.temperature,
            num_val=len(self.audit.split.val),
        )

    def _classes(self) -> list[tuple[int, int, str]]:
        """Each class's place in the arrays, its label and its name."""
        pairs = zip(self.evaluation.class_ids, self.evaluation.class_names, strict=True)
        return [(place, label, name) for place, (label, name) in enumerate(pairs)]

    def values(self) -> dict[str, Any]:
        """Returns what `report.json` holds of it: fractions, counts, and null for what has no value."""
        baseline = self.spectral_baseline
        return {
            **accuracies(self.evaluation),
            "unsmoothed": None if self.unsmoothed is None else accuracies(self.unsmoothed),
            **self.audit.values(),
            "spectral_baseline": {
                **accuracies(baseline.evaluation),
                "C": baseline.c,
                "gamma": baseline.gamma,
            },
            "clears_location_floor": self.clears_floor,
            "verdict": self.verdict,
            "per_class": [
                {
                    "label": label,
                    "name": name,
                    "support": int(self.evaluation.support[place]),
                    "producers_accuracy": number_or_none(self.evaluation.producers_accuracy[place]),
                    "users_accuracy": number_or_none(self.evaluation.users_accuracy[place]),
                    "f1": number_or_none(self.evaluation.f1[place]),
                }
                for place, label, name in self._classes()
            ],
            "confusion_matrix": self.evaluation.confusion.tolist(),
            "calibration": {
                "expected_calibration_error": self.calibration.ece,
                "temperature": self.temperature,
                "expected_calibration_error_scaled": self.calibration_scaled.ece,
                "is_scaled": is_scaled(self.temperature),
                "about": self.about_certainty,
            },
            "rejection": [
                {"coverage": coverage, "overall_accuracy": self.rejection.accuracy_at(coverage)}
                for coverage in REPORTED_COVERAGES
            ],
            "pixel_area_m2": self.area.pixel_area_m2,
            "area_caveat": AREA_CAVEAT,
            "area": [
                {
                    "label": label,
                    "name": name,
                    "mapped_pixels": int(self.area.mapped_pixels[place]),
                    "adjusted_pixels": number_or_none(self.area.pixels.value[place]),
                    "margin_95": number_or_none(self.area.pixels.margin[place]),
                }
                for place, label, name in self._classes()
            ],
            "area_adjusted_accuracy": {
                "overall_accuracy": number_or_none(self.area.overall_accuracy.value),
                "margin_95": number_or_none(self.area.overall_accuracy.margin),
            },
        }


def assess(
    truth: GroundTruth,
    split: Split,
    *,
    logits: NDArray[np.float32],
    unsmoothed: NDArray[np.float32],
    components: NDArray[np.float32],
    config: Config,
    pixel_area_m2: float | None = None,
    baselines: Baselines | None = None,
) -> Assessment:
    """Returns the assessment of a network's logits on the test pixels.

    Args:
        truth: the labels that the split goes by (`Split.relabel`).
        split: the pixels.
        logits: `(rows, cols, C)` of every pixel of the scene.
        unsmoothed: the same before `prediction.smoothing`.
        components: `(rows, cols, k)` what the network saw.
        config: the experiment's.
        pixel_area_m2: area of a pixel on the ground, where known.
        baselines: of this split and these components, if they are known already.
    """
    baselines = baselines or evaluate_baselines(truth, split, components, seed=config.seed)
    ids, names = truth.class_ids.tolist(), [truth.class_names[label] for label in truth.class_ids.tolist()]
    at_test = _at(split.test)
    predicted = logits.argmax(axis=2)

    def evaluate(classes: NDArray[np.int64]) -> Evaluation:
        return evaluate_labels(
            truth.labels[at_test], truth.class_ids[classes[at_test]], class_ids=ids, class_names=names
        )

    evaluation = evaluate(predicted)
    is_smoothed = config.prediction.smoothing is not None

    def class_of(pixels: Pixels) -> NDArray[np.int64]:
        return np.searchsorted(truth.class_ids, truth.labels[_at(pixels)])

    true_classes = class_of(split.test)
    temperature = fit_temperature(logits[_at(split.val)], class_of(split.val))
    probabilities = to_probabilities(logits[at_test])
    scaled = to_probabilities(logits[at_test], temperature=temperature)
    return Assessment(
        evaluation=evaluation,
        unsmoothed=evaluate(unsmoothed.argmax(axis=2)) if is_smoothed else None,
        audit=audit_split(truth, split, config, location_floor=baselines.location_floor),
        spectral_baseline=baselines.spectral,
        temperature=temperature,
        calibration=measure_calibration(probabilities, true_classes),
        calibration_scaled=measure_calibration(scaled, true_classes),
        rejection=measure_rejection(scaled.max(axis=1), predicted[at_test] == true_classes),
        area=estimate_area(
            evaluation.confusion,
            mapped_pixels=np.bincount(predicted[truth.valid], minlength=len(ids)),
            pixel_area_m2=pixel_area_m2,
        ),
    )


def _at(pixels: Pixels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return pixels[:, 0], pixels[:, 1]
