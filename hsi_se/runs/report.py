"""`report.json`: everything measured on one evaluated run, written by `hsi-se eval` and read by all others.

Accuracies, shares and errors are fractions; a number that cannot be computed is null. Classes are listed
in the order of their labels, and the rows and columns of the confusion matrix follow that order.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from hsi_se.errors import RunError
from hsi_se.evaluation.area import AREA_CAVEAT
from hsi_se.evaluation.assessment import REPORTED_COVERAGES, Assessment
from hsi_se.evaluation.audit import Leakage, SplitAudit
from hsi_se.evaluation.baselines import Candidate, SpectralBaseline
from hsi_se.evaluation.confidence import TemperatureScaling
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.evaluation.verdict import BaselineComparison, Outcome
from hsi_se.runs.records import Record, RunRecord, Unknown
from hsi_se.system.forms import Count, NotNegative, Positive, Share
from hsi_se.system.notebook import draw_html, percent


class _Part(Record):
    model_config = ConfigDict(from_attributes=True)


class _OfClass(_Part):
    label: Count
    name: str


Row = TypeVar("Row", bound=_Part)


def _list_rows(kind: type[Row], *columns: Sequence[Any] | NDArray[Any]) -> tuple[Row, ...]:
    """Returns a table from its columns, which are the fields of a row in their order."""
    rows = zip(*(np.asarray(column, dtype=object) for column in columns), strict=True)
    return tuple(kind(**dict(zip(kind.model_fields, row, strict=True))) for row in rows)


class Accuracies(_Part):
    """Overall accuracy, average accuracy and Cohen's κ (null with a single class), as in `Evaluation`."""

    overall_accuracy: Share
    average_accuracy: Share
    kappa: Annotated[float | None, Field(ge=-1, le=1), Unknown]


class BaselineReport(Accuracies):
    """The spectral baseline, and the candidates that cross-validation chose it from."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]

    def restore(self, labels: NDArray[np.int32]) -> SpectralBaseline:
        """Returns the baseline that predicted these labels at the test pixels; its notes are the report's."""
        return SpectralBaseline(labels, self.chosen, self.candidates)


class _Counts(_Part):
    num_train: Count
    num_val: Count
    num_test: Count
    num_buffer: Count


class ClassSplit(_Counts, _OfClass):
    """How the pixels of one class were divided."""


COUNTS = tuple(_Counts.model_fields)  # of `SplitAudit.counts`


class SplitReport(_Counts):
    """The audit of a split, known before anything is trained; buffer pixels are in no set.

    Of several folds, `num_test` counts the test pixels of all; the other numbers of pixels are means per fold.
    """

    num_test: Annotated[int, Field(ge=1)]
    split_digest: str  # equal for equal pixels
    leakage: Leakage
    location_floor: Accuracies
    split_per_class: tuple[ClassSplit, ...]
    notes: tuple[str, ...]  # what was decided while splitting, one sentence each
    unlearnable: dict[str, Count]  # test pixels of each class that has no training pixels, by name
    folds: tuple["SplitReport", ...] = ()

    @classmethod
    def of_split(cls, audit: SplitAudit) -> "SplitReport":
        floor = audit.location_floor
        return SplitReport(
            **dict(zip(COUNTS, audit.counts.sum(axis=0).tolist(), strict=True)),
            split_digest=audit.digest,
            leakage=audit.leakage,
            location_floor=Accuracies.model_validate(floor),
            split_per_class=_list_rows(ClassSplit, floor.class_ids, floor.class_names, *audit.counts.T),
            notes=audit.notes,
            unlearnable=audit.unlearnable,
            folds=tuple(map(cls.of_split, audit.folds)),
        )


class ClassAccuracy(_OfClass):
    """The accuracy of one class, as in `Evaluation`; null where there are no pixels to compute it from."""

    support: Count
    producers_accuracy: Annotated[Share | None, Unknown]
    users_accuracy: Annotated[Share | None, Unknown]
    f1: Annotated[Share | None, Unknown]


def list_class_accuracies(evaluation: Evaluation) -> tuple[ClassAccuracy, ...]:
    names = list(ClassAccuracy.model_fields)[2:]
    columns = (getattr(evaluation, name) for name in names)
    return _list_rows(ClassAccuracy, evaluation.class_ids, evaluation.class_names, *columns)


class Calibration(_Part):
    """Errors on the test pixels, before and after scaling, the scaling, and the same in words."""

    expected_calibration_error: NotNegative
    expected_calibration_error_scaled: NotNegative
    scaling: TemperatureScaling
    about: str


class Kept(_Part):
    """The accuracy of the test pixels that remain when the least certain ones are rejected."""

    coverage: Share
    overall_accuracy: Share


class ClassArea(_OfClass):
    """The area of one class in pixels: as mapped, and adjusted for the map's errors."""

    mapped_pixels: Count
    adjusted_pixels: Annotated[float | None, Unknown]
    margin_95: Annotated[NotNegative | None, Unknown]  # half the width of the 95 % interval


class AreaAccuracy(_Part):
    """The fraction of the map's area that is classified correctly."""

    overall_accuracy: Annotated[NotNegative | None, Unknown]
    margin_95: Annotated[NotNegative | None, Unknown]


_OF_RECORD = {
    "scene", "seed", "config_digest", "scene_digest", "num_parameters", "macs_per_patch", "training_s",
}  # fmt: skip


class RunReport(SplitReport, Accuracies):
    """All that was measured on the test pixels of a run, with what a reader needs to weigh it."""

    fold_accuracies: tuple[Share, ...] = ()  # the overall accuracy of each fold
    unsmoothed: Accuracies | None  # before `prediction.smoothing`; null without
    spectral_baseline: BaselineReport
    against_location_floor: BaselineComparison
    against_spectral_baseline: BaselineComparison | None  # null for a run of that very classifier
    verdict: str  # what these comparisons and the split show, in words
    next_step: str
    per_class: tuple[ClassAccuracy, ...]
    confusion_matrix: tuple[tuple[Count, ...], ...]  # a row per true class, a column per predicted class
    calibration: Calibration
    rejection: tuple[Kept, ...]
    pixel_area_m2: Positive | None  # on the ground, if known
    area_caveat: str  # when the areas below are valid
    area: tuple[ClassArea, ...]
    area_adjusted_accuracy: AreaAccuracy
    scene: str
    seed: int
    config_digest: str
    scene_digest: str
    num_parameters: Count
    macs_per_patch: Count
    training_s: NotNegative

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        labels = [row.label for row in self.per_class]
        for name in ("split_per_class", "area"):
            if [row.label for row in getattr(self, name)] != labels:
                raise ValueError(f"{name} lists other classes than per_class")
        matrix, size = self.confusion_matrix, len(labels)
        if [len(row) for row in matrix] != [size] * size:
            raise ValueError(f"confusion_matrix is not {size} × {size}, as per_class has classes")
        if sum(map(sum, matrix)) != self.num_test:
            raise ValueError("confusion_matrix does not count num_test pixels")
        return self

    def check_of(self, class_ids: Sequence[int], *, path: Path) -> None:
        """Raises RunError unless these are the classes of the report in a file."""
        if [row.label for row in self.per_class] != list(class_ids):
            raise RunError(f"{path}: has other classes than the run; run `hsi-se eval {path.parent}`")

    def __repr__(self) -> str:
        methods = (self, self.location_floor, self.spectral_baseline)
        oa, floor, baseline = percent([each.overall_accuracy for each in methods])
        accuracies = f"OA {oa} %, AA {100 * self.average_accuracy:.2f} %, κ {self.kappa or math.nan:.3f}"
        against = f"location floor {floor} %, spectral baseline {baseline} % ({self.spectral_baseline.chosen.name})"
        return f"Evaluation({self.scene}: {accuracies}, {self.num_test:,} test pixels\n{against}: {self.outcome})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        methods = {"this run": self, "location floor": self.location_floor, "spectral baseline": self.spectral_baseline}
        names = tuple(Accuracies.model_fields)
        accuracies = [(name, *percent([getattr(each, key) for key in names])) for name, each in methods.items()]
        columns = tuple(ClassAccuracy.model_fields)[3:]
        classes = [
            (row.name, f"{row.support:,}", *percent([getattr(row, key) for key in columns])) for row in self.per_class
        ]
        title, headings = f"Evaluation of {self.scene}, {self.num_test:,} test pixels", ("", "OA %", "AA %", "κ × 100")
        of_class = ("class", "test pixels", "producer's %", "user's %", "F1 %")
        return draw_html(title, headings=headings, rows=accuracies, text=self.verdict) + draw_html(
            "Classes", headings=of_class, rows=classes, text=self.calibration.about
        )

    @property
    def outcome(self) -> Outcome:
        """The less favourable outcome of the two comparisons."""
        found = (self.against_location_floor, self.against_spectral_baseline)
        return min((each.outcome for each in found if each is not None), key=get_args(Outcome).index)

    @property
    def evaluation(self) -> Evaluation:
        labels, names = zip(*((row.label, row.name) for row in self.per_class), strict=True)
        return Evaluation(np.array(self.confusion_matrix, dtype=np.int64), labels, names)

    @classmethod
    def of_run(cls, assessment: Assessment, record: RunRecord) -> "RunReport":
        evaluation, machine, area = assessment.evaluation, assessment.machine, assessment.area
        verdict, in_pixels = assessment.verdict, (area.pixels.value, area.pixels.margin)
        accuracies = [assessment.rejection.accuracy_at(coverage) for coverage in REPORTED_COVERAGES]
        return RunReport(
            **dict(Accuracies.model_validate(evaluation)),
            **dict(SplitReport.of_split(assessment.audit)) | {"notes": record.notes + machine.notes},
            fold_accuracies=tuple(fold.overall_accuracy for fold in assessment.folds),
            unsmoothed=None if assessment.unsmoothed is None else Accuracies.model_validate(assessment.unsmoothed),
            spectral_baseline=BaselineReport(
                **dict(Accuracies.model_validate(assessment.spectral_baseline)),
                chosen=machine.chosen,
                candidates=machine.candidates,
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
                scaling=assessment.scaling,
                about=assessment.about_certainty,
            ),
            rejection=_list_rows(Kept, REPORTED_COVERAGES, accuracies),
            pixel_area_m2=area.pixel_area_m2,
            area_caveat=AREA_CAVEAT,
            area=_list_rows(ClassArea, evaluation.class_ids, evaluation.class_names, area.mapped_pixels, *in_pixels),
            area_adjusted_accuracy=AreaAccuracy(
                overall_accuracy=area.overall_accuracy.value, margin_95=area.overall_accuracy.margin
            ),
            **record.model_dump(include=_OF_RECORD),
        )
