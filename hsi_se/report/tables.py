"""Tables of accuracies: their rows, the numbers in them as text, and `report.md`."""

import math
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from hsi_se.evaluation.area import AREA_CAVEAT
from hsi_se.evaluation.assessment import REPORTED_COVERAGES, Assessment
from hsi_se.evaluation.audit import Leakage
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.evaluation.statistics import SHARE, points, signed, summarize
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import RunRecord
from hsi_se.runs.report import list_class_accuracies


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
    return "–" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.2f}"


def kappa_text(kappa: float | None) -> str:
    """Returns `0.98765` as `0.9877`; a dash if kappa cannot be computed (a single class)."""
    return "–" if kappa is None or math.isnan(kappa) else f"{kappa:.4f}"


def pixels(count: float) -> str:
    """Returns a number of pixels, rounded; a dash for a value that cannot be computed."""
    return "–" if math.isnan(count) else f"{count:,.0f}"


def hectares(area: float) -> str:
    """Returns four digits, whole numbers from 1,000; a dash for a value that cannot be computed."""
    return "–" if math.isnan(area) else f"{area:,.0f}" if area >= 1000 else f"{area:.4g}"


def describe_leakage(leakage: Leakage) -> str:
    """Returns the leakage of a split in two sentences.

    Validation pixels count as training pixels here: they choose the epoch.
    """
    size, distance = leakage.patch_size, leakage.min_distance
    return (
        f"With {size} × {size} patches, {percent(leakage.test_patches_with_train_pixels)} % of test patches "
        f"contain training pixels ({leakage.mean_train_pixels_per_test_patch:.1f} on average); the closest "
        f"training and test pixels are {distance} pixel{'s' if distance != 1 else ''} apart. The reduction "
        f"was {'fitted on test pixels too' if leakage.reduction_saw_test else 'not fitted on test pixels'}."
    )


def describe_draws(accuracies: Sequence[float]) -> str:
    """Returns the overall accuracies of several draws of the folds, with their mean and its 95 % interval."""
    found = summarize(accuracies, within=SHARE)
    mean, std, low, high = (f"{100 * value:.2f}" for value in (found.mean, found.std, found.low, found.high))
    each = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
    return f"OA over {found.n} draws of the folds: {mean} ± {std} %, 95 % interval {low} to {high} % ({each})"


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "−": "$-$",
        "–": "--",
        "κ": r"$\kappa$",
        "×": r"$\times$",
        "Δ": r"$\Delta$",
        "µ": r"$\mu$",
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    }
)


def escape_latex(text: str) -> str:
    """Returns a text with LaTeX's special characters escaped."""
    return text.translate(_LATEX)


def render_template(template: str, **values: object) -> str:
    """Returns a template filled with values; text is escaped in HTML and XML."""
    environment = Environment(
        loader=PackageLoader("hsi_se.report"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=select_autoescape(["html", "xml"]),
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")  # of a Markdown table
    environment.filters["latex"] = escape_latex
    for write in (percent, kappa_text, pixels, hectares, points, signed):
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
