"""The reports of an ablation, and its page: figures, tables, and every run behind them."""

import json
from collections.abc import Mapping
from urllib.parse import quote

from hsi_se.ablation.figures import list_figures, refresh_figures, render_svg
from hsi_se.ablation.record import AblationFolder, AblationReport, AblationRun
from hsi_se.ablation.tables import list_tables, render_csv, render_latex, render_markdown, spread
from hsi_se.report.tables import render_template
from hsi_se.runs.folder import RunFolder


def write_reports(report: AblationReport, folder: AblationFolder) -> None:
    """Writes the report of an ablation in all its forms, and draws the figures again that are there."""
    refresh_figures(report, folder)
    folder.write_report(
        report,
        [
            (folder.report_text, render_markdown(report, folder)),
            (folder.table, render_csv(report)),
            (folder.latex, render_latex(report)),
            (folder.page, render_page(report, folder)),
        ],
    )


def render_page(report: AblationReport, folder: AblationFolder) -> str:
    """Returns `report.html`, which needs no other file; it links the pages of the runs that have one."""
    return render_template(
        "ablation.html",
        report=report,
        num_runs=sum(len(variant.runs) for scene in report.scenes for variant in scene.variants),
        figures=[(figure, render_svg(figure)) for figure in list_figures(report)],
        list_tables=list_tables,
        page_of=lambda run: _page_of(folder, run),
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
