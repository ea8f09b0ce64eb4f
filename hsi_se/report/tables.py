"""Tables of accuracies, as values for a screen and as Markdown."""

import math
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from hsi_se.evaluation.metrics import Evaluation
from hsi_se.records import RunFolder, RunRecord


@dataclass(frozen=True)
class ClassRow:
    """One class of the per-class table; accuracies are fractions."""

    label: int
    name: str
    support: int
    producers: float
    users: float
    f1: float


def list_class_rows(evaluation: Evaluation) -> list[ClassRow]:
    return [
        ClassRow(*values)
        for values in zip(
            evaluation.class_ids,
            evaluation.class_names,
            evaluation.support.tolist(),
            evaluation.producers_accuracy.tolist(),
            evaluation.users_accuracy.tolist(),
            evaluation.f1.tolist(),
            strict=True,
        )
    ]


def percent(fraction: float) -> str:
    """`0.98765` as `98.77`; a dash for what cannot be computed."""
    return "–" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def render_markdown(
    evaluation: Evaluation, record: RunRecord, run: RunFolder, *, is_split_leaky: bool
) -> str:
    """Returns `report.md`, whose pictures lie beside it in the run folder."""
    environment = Environment(
        loader=PackageLoader("hsi_se.report"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template("report.md").render(
        evaluation=evaluation,
        record=record,
        run=run,
        rows=list_class_rows(evaluation),
        percent=percent,
        is_split_leaky=is_split_leaky,
    )
