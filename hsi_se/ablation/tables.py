"""The results of an ablation: as tables, as Markdown, CSV and LaTeX, and as a page with figures and runs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hsi_se.ablation.figures import list_figures, list_map_figures, refresh_figures
from hsi_se.ablation.record import AblationFolder, AblationReport, AblationRun, SceneReport, VariantReport
from hsi_se.ablation.summary import METHODS
from hsi_se.evaluation.statistics import Summary
from hsi_se.reports.tables import number, percent, render_template
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import flatten
from hsi_se.runs.report import Accuracies
from hsi_se.system.files import to_csv

_COLUMNS: Mapping[str, Callable[[VariantReport], str]] = {
    "variant": lambda variant: variant.name,
    "n": lambda variant: str(len(variant.runs)),
    "OA %": lambda variant: spread(variant.summaries["overall_accuracy"]),
    "AA %": lambda variant: spread(variant.summaries["average_accuracy"]),
    "κ × 100": lambda variant: spread(variant.summaries["kappa"]),
    "floor %": lambda variant: spread(variant.summaries["location_floor.overall_accuracy"]),
    "parameters": lambda variant: number(variant.num_parameters),
    "M MACs": lambda variant: "–" if (macs := variant.macs_per_patch) is None else f"{macs / 1e6:.2f}",
    "train µs/px": lambda variant: number(variant.summaries["training_us_per_pixel"].mean),
    "map µs/px": lambda variant: number(variant.summaries["mapping_us_per_pixel"].mean),
    "train MB": lambda variant: number(variant.summaries["training_peak_bytes"].mean, factor=1e-6),
    "map MB": lambda variant: number(variant.summaries["mapping_peak_bytes"].mean, factor=1e-6),
}
HEADINGS = tuple(_COLUMNS)


def list_rows(scene: SceneReport) -> list[tuple[str, ...]]:
    """Returns one row of texts per variant, under `HEADINGS`."""
    return [tuple(show(variant) for show in _COLUMNS.values()) for variant in scene.variants]


@dataclass(frozen=True)
class Table:
    """A table in every format; the first `num_texts` columns are texts, the others numbers.

    `bold` has the row and column of each cell in bold, `rules` the rows with a line above. A row of one text is the
    title of those below it.
    """

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    num_texts: int = 1
    name: str = ""  # of its label
    bold: frozenset[tuple[int, int]] = frozenset()
    rules: frozenset[int] = frozenset()


def list_tables(scene: SceneReport, *, with_interval: bool = True) -> list[Table]:
    """Returns the tables of methods, of classes and of convergence that have rows.

    Without `with_interval`, the accuracies of the classes have no intervals, so that they are narrow.
    """
    names = tuple(variant.name for variant in scene.begun)
    mean = "mean ± sample standard deviation over the seeds"
    tables = [
        Table(
            f"Accuracy: {mean} [95 % interval of the mean]",
            ("variant", "method", "OA %", "AA %", "κ × 100"),
            _list_methods(scene),
            2,
        ),
        Table(
            f"Producer's accuracy (%) of each class: {mean}",
            ("label", "class", *names),
            _list_classes(scene, with_interval=with_interval) if names else [],
            2,
        ),
        Table(
            f"Epochs until a validation accuracy of {percent(scene.target)} %",
            ("variant", "best validation OA %", "runs that reach it", "median epochs"),
            _list_convergence(scene),
        ),
    ]
    return [table for table in tables if table.rows]


def _list_methods(scene: SceneReport) -> list[tuple[str, ...]]:
    """The network and what it must beat. One row stands for all variants where they agree."""
    rows = []
    for part, method in METHODS.items():
        cells: dict[tuple[str, ...], list[str]] = {}
        for variant in scene.begun:
            if f"{part}overall_accuracy" in variant.summaries:
                texts = tuple(interval(variant.summaries[part + name]) for name in Accuracies.model_fields)
                cells.setdefault(texts, []).append(variant.name)
        for texts, names in cells.items():
            is_of_all = len(names) == len(scene.variants) > 1
            rows += [(name, method, *texts) for name in (["all"] if is_of_all else names)]
    return rows


def _list_classes(scene: SceneReport, *, with_interval: bool) -> list[tuple[str, ...]]:
    def show(variant: VariantReport, label: int) -> str:
        summary = variant.producers_accuracy[label]
        text = interval(summary) if with_interval else spread(summary)
        return text if summary.n == len(variant.runs) else f"{text} (n = {summary.n})"

    return [
        (str(label), name, *(show(variant, label) for variant in scene.begun))
        for label, name in scene.class_names.items()
    ]


def _list_convergence(scene: SceneReport) -> list[tuple[str, ...]]:
    return [
        (
            variant.name,
            percent(found.best),
            f"{found.num_reached} of {found.num_runs}",
            f"> {len(found.validation_accuracy)}" if found.median_epochs is None else f"{found.median_epochs:g}",
        )
        for variant in scene.variants
        if scene.target is not None and (found := variant.convergence)
    ]


def spread(summary: Summary | None, *, factor: float = 100.0, digits: int = 2) -> str:
    """Returns `94.64 ± 0.52`, in per cent unless given another factor; a dash where there is no number."""
    if summary is None or summary.n == 0:
        return "–"
    text = f"{factor * summary.mean:,.{digits}f}".replace("-", "−")
    return text if summary.n == 1 else f"{text} ± {factor * summary.std:.{digits}f}"


def interval(summary: Summary) -> str:
    """Returns `94.64 ± 0.52 [94.00, 95.28]`: mean, sample standard deviation, 95 % interval, in per cent."""
    text = spread(summary)
    if summary.n < 2:
        return text
    return f"{text} [{100 * summary.low:.2f}, {100 * summary.high:.2f}]"


def render(template: str, report: AblationReport, folder: AblationFolder) -> str:
    """Returns a report by the name of its template: `ablation.md`, `ablation.tex` or `ablation.html`.

    The Markdown links the figures that are in the folder. The page needs no other file, and links the pages of the
    runs that have one.
    """
    return render_template(
        template,
        report=report,
        folder=folder,
        headings=HEADINGS,
        list_rows=list_rows,
        list_tables=list_tables,
        list_figures=list_figures,
        list_map_figures=list_map_figures,
        page_of=_page_of,
        spread=spread,
        show_settings=_show_settings,
    )


def _page_of(folder: AblationFolder, run: AblationRun) -> str | None:
    """The address of a run's page relative to the ablation's page; None if the run has no page."""
    page = RunFolder(folder.path / run.folder).page
    return quote(f"{run.folder}/{page.name}") if page.is_file() else None


def _show_settings(settings: Mapping[str, object]) -> str:
    """Returns settings in YAML's flow style, as `--set` takes them."""
    parts = (f"{key}: {json.dumps(value).replace(chr(34), '')}" for key, value in settings.items())
    return "; ".join(parts) or "the base, unchanged"


def render_csv(report: AblationReport) -> str:
    """Returns `ablation.csv`: one row per run, accuracies as fractions.

    Nested fields have dotted names, such as `location_floor.kappa`, and the producer's accuracies end
    with the class label.
    """
    rows: list[dict[str, Any]] = []
    for scene in report.scenes:
        for variant in scene.variants:
            found = variant.convergence
            epochs = found.epochs if found and found.epochs else [None] * len(variant.runs)
            for run, count in zip(variant.runs, epochs, strict=True):
                without = {name for name in ("unsmoothed", "difference", "mcnemar") if getattr(run, name) is None}
                row = {"scene": scene.name, "variant": variant.name} | flatten(run.model_dump(exclude=without))
                rows.append(row if scene.target is None else row | {"epochs_to_target": count})
    columns = dict.fromkeys(name for row in rows for name in row)
    return to_csv(columns, [[row.get(name) for name in columns] for row in rows])


def write_reports(report: AblationReport, folder: AblationFolder) -> None:
    """Writes the report of an ablation in all its forms, and draws the figures again that are there."""
    refresh_figures(report, folder)
    for path in folder.rendered:
        folder.write(path, render(f"ablation{path.suffix}", report, folder))
    folder.write(folder.table, render_csv(report))
    folder.write(folder.report, report)
