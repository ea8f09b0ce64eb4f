"""`report.json`: everything measured on one evaluated run, written by `hsi-se eval` and read by all others.

Accuracies, shares and errors are fractions; a number that cannot be computed is null. Classes are listed
in the order of their labels, and the rows and columns of the confusion matrix follow that order.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from hsi_se.evaluation.area import AREA_CAVEAT
from hsi_se.evaluation.assessment import REPORTED_COVERAGES, Assessment
from hsi_se.evaluation.audit import SplitAudit
from hsi_se.evaluation.metrics import Evaluation, number_or_none
from hsi_se.evaluation.verdict import BaselineComparison, Outcome
from hsi_se.runs.records import Record, RunRecord

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class _Part(Record):
    model_config = ConfigDict(allow_inf_nan=False)


Row = TypeVar("Row", bound=_Part)


def _list_rows(kind: type[Row], *columns: Sequence[Any] | NDArray[Any]) -> tuple[Row, ...]:
    """Returns a table from its columns, which are the fields of a row in their order; a NaN becomes None."""
    values = zip(*(np.asarray(column, dtype=object) for column in columns), strict=True)
    known = ([None if value != value else value for value in row] for row in values)
    return tuple(kind(**dict(zip(kind.model_fields, row, strict=True))) for row in known)


class Accuracies(_Part):
    """Accuracies of one method on the test pixels."""

    overall_accuracy: Share = Field(description="OA: fraction of test pixels classified correctly.")
    average_accuracy: Share = Field(
        description="AA: mean producer's accuracy of the classes that have test pixels."
    )
    kappa: float | None = Field(ge=-1, le=1, description="Cohen's kappa; null with one class only.")

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Accuracies":
        return Accuracies(
            overall_accuracy=evaluation.overall_accuracy,
            average_accuracy=evaluation.average_accuracy,
            kappa=number_or_none(evaluation.kappa),
        )


class BaselineReport(Accuracies):
    """The spectral baseline: a support vector machine on single pixels."""

    c: NotNegative = Field(alias="C", description="Penalty chosen by cross-validation; 0 if not fitted.")
    gamma: NotNegative = Field(description="Kernel width chosen by cross-validation; 0 if not fitted.")


class LeakageReport(_Part):
    """How much of the training set the test patches contain."""

    patch_size: Annotated[int, Field(ge=1)] = Field(
        description="Side of a patch in pixels, including what smoothing reaches."
    )
    test_patches_with_train_pixels: Share = Field(
        description="Fraction of test patches that contain a training pixel."
    )
    mean_train_pixels_per_test_patch: NotNegative = Field(
        description="Training pixels in a test patch, on average."
    )
    min_distance: Count = Field(
        description="Smallest distance between a training and a test pixel, in pixels (the larger of the "
        "row and the column distance)."
    )
    reduction_saw_test: bool = Field(description="Whether the reduction was fitted on test pixels too.")


class ClassSplit(_Part):
    """How the pixels of one class were divided."""

    label: int
    name: str
    num_train: Count
    num_val: Count
    num_test: Count
    num_buffer: Count


_COUNTS = ("num_train", "num_val", "num_test", "num_buffer")  # of `SplitAudit.counts`


class SplitReport(_Part):
    """The audit of a split, known before anything is trained."""

    num_train: Count = Field(description="Training pixels.")
    num_val: Count = Field(description="Validation pixels.")
    num_test: Annotated[int, Field(ge=1)] = Field(description="Test pixels.")
    num_buffer: Count = Field(description="Labelled pixels left out between training and test set.")
    split_digest: str = Field(description="Fingerprint of the split: equal for equal pixels.")
    leakage: LeakageReport
    location_floor: Accuracies = Field(
        description="1-nearest-neighbour on row and column, which sees no spectrum."
    )
    split_per_class: tuple[ClassSplit, ...]
    notes: tuple[str, ...] = Field(description="What was decided while splitting, one sentence each.")

    @classmethod
    def of_split(cls, audit: SplitAudit) -> "SplitReport":
        return SplitReport(
            **dict(zip(_COUNTS, audit.counts.sum(axis=0).tolist(), strict=True)),
            split_digest=audit.split.digest,
            leakage=LeakageReport(**asdict(audit.leakage)),
            location_floor=Accuracies.of(audit.location_floor),
            split_per_class=_list_rows(ClassSplit, audit.class_ids, audit.class_names, *audit.counts.T),
            notes=audit.split.notes,
        )


class ClassAccuracy(_Part):
    """The accuracy of one class."""

    label: int
    name: str
    support: Count = Field(description="Test pixels of this class.")
    producers_accuracy: Share | None = Field(description="Recall; null without test pixels.")
    users_accuracy: Share | None = Field(description="Precision; null if no test pixel is predicted so.")
    f1: Share | None = Field(description="Harmonic mean of the two.")


def list_class_accuracies(evaluation: Evaluation) -> tuple[ClassAccuracy, ...]:
    return _list_rows(
        ClassAccuracy,
        evaluation.class_ids,
        evaluation.class_names,
        evaluation.support,
        evaluation.producers_accuracy,
        evaluation.users_accuracy,
        evaluation.f1,
    )


class Calibration(_Part):
    """How far the network's confidence can be trusted."""

    expected_calibration_error: NotNegative = Field(description="As trained, on the test pixels.")
    expected_calibration_error_scaled: NotNegative = Field(description="After temperature scaling.")
    is_scaled: bool = Field(description="Whether a temperature was shown to help, and is used.")
    temperature: Positive = Field(description="Divides the logits; 1 if none was shown to help.")
    source: Literal["cross-fit", "validation"] | None = Field(description="Origin of its pixels, if any.")
    num_pixels: Count = Field(description="Pixels that the temperature was fitted on.")
    num_groups: Count = Field(description="Independent groups of them, such as fields.")
    gain: float | None = Field(description="Gain in log-likelihood per pixel, on pixels left out of the fit.")
    gain_low: float | None = Field(description="Lower end of its 95 % interval.")
    gain_high: float | None = Field(description="Upper end of its 95 % interval.")
    lack: str = Field(description="Why the confidence is not calibrated; empty if it is.")
    about: str = Field(description="The same in words.")


class Kept(_Part):
    """The accuracy of the test pixels that remain when the least certain ones are rejected."""

    coverage: Share = Field(description="Fraction of test pixels kept.")
    overall_accuracy: Share = Field(description="Fraction of those classified correctly.")


class ClassArea(_Part):
    """The area of one class."""

    label: int
    name: str
    mapped_pixels: Count = Field(description="Pixels of the map predicted as this class.")
    adjusted_pixels: float | None = Field(description="Its area in pixels, adjusted for the map's errors.")
    margin_95: NotNegative | None = Field(description="Half the width of the 95 % interval, in pixels.")


class AreaAccuracy(_Part):
    """The accuracy of the map by area."""

    overall_accuracy: NotNegative | None = Field(description="Fraction of the area mapped correctly.")
    margin_95: NotNegative | None = Field(description="Half the width of the 95 % interval.")


_OF_RECORD = {
    "scene", "seed", "config_digest", "scene_digest", "num_parameters", "macs_per_patch", "training_s",
}  # fmt: skip


class RunReport(SplitReport, Accuracies):
    """All that was measured on the test pixels of a run, with what a reader needs to weigh it."""

    unsmoothed: Accuracies | None = Field(
        description="Accuracies before prediction.smoothing; null where the config has none."
    )
    spectral_baseline: BaselineReport
    against_location_floor: BaselineComparison = Field(
        description="Difference of OA from the location floor, with its 95 % interval over groups of pixels."
    )
    against_spectral_baseline: BaselineComparison | None = Field(
        description="The same for the spectral baseline; null for a run of that very classifier."
    )
    verdict: str = Field(description="What these comparisons and the split show, in words.")
    next_step: str = Field(description="What to do next, with a command.")
    per_class: tuple[ClassAccuracy, ...]
    confusion_matrix: tuple[tuple[Count, ...], ...] = Field(
        description="Test pixels: a row per true class, a column per predicted class."
    )
    calibration: Calibration
    rejection: tuple[Kept, ...]
    pixel_area_m2: Positive | None = Field(description="Area of a pixel on the ground, if known.")
    area_caveat: str = Field(description="When the areas below are valid.")
    area: tuple[ClassArea, ...]
    area_adjusted_accuracy: AreaAccuracy
    scene: str
    seed: int
    config_digest: str
    scene_digest: str
    num_parameters: Count
    macs_per_patch: Count = Field(description="Multiply-accumulates for one patch.")
    training_s: NotNegative = Field(description="Time spent in training, in seconds.")

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        labels = [row.label for row in self.per_class]
        for name in ("split_per_class", "area"):
            if [row.label for row in getattr(self, name)] != labels:
                raise ValueError(f"{name} lists other classes than per_class")
        matrix = self.confusion_matrix
        if len(matrix) != len(labels) or any(len(row) != len(labels) for row in matrix):
            raise ValueError(
                f"confusion_matrix is not {len(labels)} × {len(labels)}, as per_class has classes"
            )
        if sum(map(sum, matrix)) != self.num_test:
            raise ValueError("confusion_matrix does not count num_test pixels")
        return self

    @property
    def outcome(self) -> Outcome:
        """The less favourable outcome of the two comparisons."""
        found = (self.against_location_floor, self.against_spectral_baseline)
        return min((each.outcome for each in found if each is not None), key=get_args(Outcome).index)

    @property
    def evaluation(self) -> Evaluation:
        return Evaluation(
            np.array(self.confusion_matrix, dtype=np.int64),
            tuple(row.label for row in self.per_class),
            tuple(row.name for row in self.per_class),
        )

    @classmethod
    def of_run(cls, assessment: Assessment, record: RunRecord) -> "RunReport":
        """Returns the report of a run that was assessed."""
        evaluation, machine, area = assessment.evaluation, assessment.machine, assessment.area
        verdict = assessment.verdict
        accuracies = [assessment.rejection.accuracy_at(coverage) for coverage in REPORTED_COVERAGES]
        return RunReport(
            **dict(Accuracies.of(evaluation)),
            **dict(SplitReport.of_split(assessment.audit)) | {"notes": record.notes},
            unsmoothed=None if assessment.unsmoothed is None else Accuracies.of(assessment.unsmoothed),
            spectral_baseline=BaselineReport(
                **dict(Accuracies.of(assessment.spectral_baseline)), C=machine.c, gamma=machine.gamma
            ),
            against_location_floor=verdict.against_floor,
            against_spectral_baseline=verdict.against_baseline,
            verdict=verdict.findings,
            next_step=verdict.next_step,
            per_class=list_class_accuracies(evaluation),
            confusion_matrix=tuple(map(tuple, evaluation.confusion.tolist())),
            calibration=Calibration(
                expected_calibration_error=assessment.calibration.ece,
                expected_calibration_error_scaled=assessment.calibration_scaled.ece,
                is_scaled=assessment.scaling.is_scaled,
                about=assessment.about_certainty,
                **asdict(assessment.scaling),
            ),
            rejection=_list_rows(Kept, REPORTED_COVERAGES, accuracies),
            pixel_area_m2=area.pixel_area_m2,
            area_caveat=AREA_CAVEAT,
            area=_list_rows(
                ClassArea,
                evaluation.class_ids,
                evaluation.class_names,
                area.mapped_pixels,
                area.pixels.value,
                area.pixels.margin,
            ),
            area_adjusted_accuracy=AreaAccuracy(
                overall_accuracy=number_or_none(area.overall_accuracy.value),
                margin_95=number_or_none(area.overall_accuracy.margin),
            ),
            **record.model_dump(include=_OF_RECORD),
        )
