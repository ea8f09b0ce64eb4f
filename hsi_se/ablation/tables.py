"""The answer of an ablation as tables: for a screen, Markdown, CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Callable

from hsi_se.ablation.figures import list_figures
from hsi_se.ablation.record import (
    AblationFolder,
    AblationReport,
    AblationRun,
    SceneReport,
    SummaryRecord,
    VariantReport,
)
from hsi_se.report.tables import points, render_template, signed

HEADINGS = (
    "variant",
    "n",
    "OA %",
    "AA %",
    "κ × 100",
    "floor %",
    "parameters",
    "M MACs",
    "train µs/px",
    "map µs/px",
    "train MB",
    "map MB",
)


def list_rows(scene: SceneReport) -> list[tuple[str, ...]]:
    """Returns a row of texts for every variant, under `HEADINGS`."""
    return [_list_cells(variant) for variant in scene.variants]


def _list_cells(variant: VariantReport) -> tuple[str, ...]:
    summaries = variant.summaries
    accuracies = [
        spread(summaries[name])
        for name in ("overall_accuracy", "average_accuracy", "kappa", "location_floor")
    ]
    costs = [
        mean(summaries[name], factor=factor)
        for name, factor in (
            ("training_us_per_pixel", 1.0),
            ("mapping_us_per_pixel", 1.0),
            ("training_peak_bytes", 1e-6),
            ("mapping_peak_bytes", 1e-6),
        )
    ]
    return (
        variant.name,
        str(len(variant.runs)),
        *accuracies,
        _or_dash(variant.num_parameters, lambda count: f"{count:,.0f}"),
        _or_dash(variant.macs_per_patch, lambda macs: f"{macs / 1e6:.2f}"),
        *costs,
    )


def spread(summary: SummaryRecord | None, *, factor: float = 100.0, digits: int = 2) -> str:
    """`94.64 ± 0.52`, in per cent unless another factor is given; a dash for what cannot be computed."""
    if summary is None or summary.mean is None:
        return "–"
    text = f"{factor * summary.mean:,.{digits}f}"
    return text if summary.std is None else f"{text} ± {factor * summary.std:.{digits}f}"


def mean(summary: SummaryRecord, *, factor: float) -> str:
    return _or_dash(summary.mean, lambda value: f"{factor * value:,.0f}")


def _or_dash(value: float | None, describe: Callable[[float], str]) -> str:
    return "–" if value is None else describe(value)


def render_markdown(report: AblationReport, folder: AblationFolder) -> str:
    """Returns `ablation.md`, whose pictures `save_figures` puts beside it."""
    return render_template(
        "ablation.md",
        report=report,
        figures=list_figures(report, folder),
        headings=HEADINGS,
        list_rows=list_rows,
        list_comparisons=list_comparisons,
    )


def list_comparisons(scene: SceneReport) -> list[tuple[str, ...]]:
    """Returns a row for every variant that has been compared."""
    rows: list[tuple[str, ...]] = []
    for variant in scene.variants:
        found = variant.comparison
        if found is None:
            continue
        low, high = points(found.difference.low), points(found.difference.high)
        rows.append(
            (
                variant.name,
                str(found.difference.n),
                points(found.difference.mean),
                "–" if found.difference.low is None else f"{low} to {high}",
                f"{found.rank_sum:g}",
                f"{found.p:.3g}",
                f"{found.p_holm:.3g}",
                signed(found.effect_size),
                signed(found.rank_biserial),
            )
        )
    return rows


def render_csv(report: AblationReport) -> str:
    """Returns `ablation.csv`: one row a run, accuracies as fractions."""
    stream = io.StringIO()
    names = [name for name in AblationRun.model_fields if name != "mcnemar"]
    tests = ("only_baseline", "only_variant", "p")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["scene", "variant", *names, *(f"mcnemar_{name}" for name in tests)])
    for scene in report.scenes:
        for variant in scene.variants:
            for run in variant.runs:
                test = [None if run.mcnemar is None else getattr(run.mcnemar, name) for name in tests]
                writer.writerow([scene.name, variant.name, *(getattr(run, name) for name in names), *test])
    return stream.getvalue()


# ------------------------------------------------------------------------------------- LaTeX

_LATEX = {
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


def escape_latex(text: str) -> str:
    """Returns a text that LaTeX sets as it stands."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match[0]], text)


def render_latex(report: AblationReport) -> str:
    """Returns `ablation.tex`: a table of the `booktabs` package for every scene."""
    return "\n".join(_render_scene(report, scene) for scene in report.scenes)


def _render_scene(report: AblationReport, scene: SceneReport) -> str:
    headings = ("Variant", "$n$", "OA (%)", "AA (%)", "κ × 100", "ΔOA (95 %)", "$p$", "Parameters", "M MACs")
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_caption(report, scene)}}}",
        r"  \begin{tabular}{l" + "r" * (len(headings) - 1) + "}",
        r"    \toprule",
        "    " + " & ".join(text if "$" in text else escape_latex(text) for text in headings) + r" \\",
        r"    \midrule",
    ]
    for variant, row in zip(scene.variants, list_rows(scene), strict=True):
        found = variant.comparison
        name, n, oa, aa, kappa, _, parameters, macs, *_ = row
        difference, p = "–", "–"
        if found is not None:
            low, high = points(found.difference.low), points(found.difference.high)
            difference = points(found.difference.mean)
            difference += "" if found.difference.low is None else f" ({low}, {high})"
            p = "<0.001" if found.p_holm < 5e-4 else f"{found.p_holm:.3f}"
        cells = (name, n, oa, aa, kappa, difference, p, parameters, macs)
        lines.append("    " + " & ".join(map(escape_latex, cells)) + r" \\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""])


def _caption(report: AblationReport, scene: SceneReport) -> str:
    num_tests = sum(variant.comparison is not None for each in report.scenes for variant in each.variants)
    floors = [variant.summaries["location_floor"] for variant in scene.variants if variant.runs]
    floor = f" Location floor: {spread(floors[0])} % OA." if floors else ""
    return escape_latex(
        f"{report.name} on {scene.name}: mean ± sample standard deviation over seeds; difference of OA from "
        f"{report.baseline} in points with its 95 % interval; p of the exact Wilcoxon signed-rank test after "
        f"Holm over {num_tests} comparison{'s' if num_tests != 1 else ''}.{floor}"
    )
