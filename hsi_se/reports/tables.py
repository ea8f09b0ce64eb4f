"""Tables of accuracies: their rows, the numbers in them as text, `report.md`, and results in whole sentences."""

import math
import re
from collections.abc import Sequence

import numpy as np
from anyascii import anyascii
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from hsi_se.evaluation.area import AREA_CAVEAT
from hsi_se.evaluation.assessment import REPORTED_COVERAGES, Assessment
from hsi_se.evaluation.audit import Leakage
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.evaluation.statistics import SHARE, SIGNED, points, signed, summarize
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import GateExplanation, ModeComparison, RunRecord
from hsi_se.runs.report import list_class_accuracies
from hsi_se.system.files import read_facts

_MEDIUM = 0.06  # a smaller ω² is a small effect (Cohen 1988, section 8.2)
_LATIN = 0x180  # LaTeX sets all letters below
_LITTLE = 0.01  # of the range of a gate, which is from 0 to 1


def list_methods(assessment: Assessment) -> list[tuple[str, Evaluation]]:
    """Returns the network, with and without smoothing, and the two baselines it must beat."""
    methods = {
        "network": assessment.evaluation,
        "network, not smoothed": assessment.unsmoothed,
        "location floor": assessment.audit.location_floor,
        "spectral baseline": assessment.spectral_baseline,
    }
    return [(name, evaluation) for name, evaluation in methods.items() if evaluation is not None]


def percent(fraction: float | None) -> str:
    """Returns `0.98765` as `98.77`; a dash for a value that cannot be computed."""
    return number(fraction, 2, factor=100)


def number(value: float | None, digits: int = 0, *, factor: float = 1.0) -> str:
    """Returns `1,234.5` with so many digits; a dash for a value that cannot be computed."""
    return "–" if value is None or math.isnan(value) else f"{factor * value:,.{digits}f}"


def hectares(area: float) -> str:
    """Returns four digits, whole numbers from 1,000; a dash for a value that cannot be computed."""
    return "–" if math.isnan(area) else f"{area:,.0f}" if area >= 1000 else f"{area:.4g}"


def describe_leakage(leakage: Leakage) -> str:
    """Returns a split's leakage in two sentences; validation pixels count as training pixels: they choose the epoch."""
    return _write_sentences("leakage.txt", **vars(leakage))


def describe_draws(accuracies: Sequence[float]) -> str:
    """Returns the overall accuracies of several draws of the folds, with their mean and its 95 % interval."""
    found = summarize(accuracies, within=SHARE)
    mean, std, low, high = (f"{100 * value:.2f}" for value in (found.mean, found.std, found.low, found.high))
    each = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
    of_mean = f"{mean} ± {std} %, 95 % interval {low} to {high} %"
    return f"Overall accuracy over {found.n} draws of the folds: {of_mean} ({each})"


def escape_latex(text: str) -> str:
    """Returns a text with LaTeX's special characters escaped, and letters that it lacks in Latin ones: 玉米 as YuMi."""
    text = text.translate(str.maketrans(read_facts("hsi_se.reports", "latex.toml")))
    return "".join(letter if ord(letter) < _LATIN else escape_latex(anyascii(letter).strip(":")) for letter in text)


def render_template(template: str, **values: object) -> str:
    """Returns a template filled with values; text is escaped in HTML and XML."""
    environment = Environment(
        loader=PackageLoader("hsi_se.reports"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=select_autoescape(["html", "xml"]),
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")  # of a Markdown table
    environment.filters["latex"] = escape_latex
    environment.filters["label"] = lambda text: re.sub(r"[^A-Za-z0-9]+", "-", str(text)).strip("-")  # as LaTeX takes it
    for write in (percent, number, hectares, points, signed):
        environment.globals[write.__name__] = write
    return environment.get_template(template).render(values)


def render_report(assessment: Assessment, record: RunRecord, run: RunFolder) -> str:
    """Returns `report.md`; its map lies beside it in the run folder."""
    return render_template(
        "report.md",
        assessment=assessment,
        record=record,
        run=run,
        rows=list_class_accuracies(assessment.evaluation),
        methods=list_methods(assessment),
        leakage_sentence=describe_leakage(assessment.audit.leakage),
        coverages=REPORTED_COVERAGES,
        area_caveat=AREA_CAVEAT,
    )


def describe_gates(runs: Sequence[Sequence[GateExplanation]]) -> str:
    """Returns whether early gates treat the classes alike and late ones differ, in one run or over seeds.

    The claim is of Hu et al. 2020, section 7.2. Every run has the same gates, in the order of the network.
    """
    first, last = ([run[place] for run in runs if run] for place in (0, -1))
    # A gate that never changes has no variance to explain, and treats all classes alike.
    early, late = (np.array([gate.between_class_share or 0.0 for gate in found]) for found in (first, last))
    deviations = [summarize([gate.between_class_std for gate in found]).mean for found in (first, last)]
    shares = summarize(early, within=SHARE)
    return _write_sentences(
        "gates.txt",
        gates=runs[0],
        early=shares,
        late=summarize(late, within=SHARE),
        difference=summarize(late - early, within=SIGNED),
        deviations=deviations,
        is_alike=shares.mean < _MEDIUM or deviations[0] < _LITTLE,
        num_constant=sum(gate.between_class_share is None for gate in first + last),
    )


def describe_modes(runs: Sequence[ModeComparison]) -> str:
    """Returns what predicting in training mode would have cost, in one run or over seeds."""
    evaluation = np.array([run.evaluation for run in runs])
    passes = np.array([run.training or (math.nan, math.nan) for run in runs])  # (runs, 2)
    return _write_sentences(
        "modes.txt",
        first=runs[0],
        evaluation=summarize(evaluation, within=SHARE),
        passes=[summarize(each, within=SHARE) for each in passes.T],
        difference=summarize(evaluation - passes.mean(axis=1), within=SIGNED),
        changed=sum(run.num_changed for run in runs) / sum(run.num_pixels for run in runs),
    )


def _write_sentences(template: str, **values: object) -> str:
    """Returns a filled template as one paragraph, whose lines may break anywhere."""
    return " ".join(render_template(template, **values).split())
