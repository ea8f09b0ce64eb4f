"""The commands to look at a run or an ablation with: `hsi-se report`, and `watch` while it trains."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN|ABLATION", help="An evaluated run, or an ablation's folder.")
    ],
    figures: Annotated[
        str | None,
        typer.Option(metavar="png|pdf|svg", help="Also write all figures for a paper into figures/."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write the report as one HTML file that works offline: a map to explore, tables and curves."""
    from hsi_se.ablation.record import AblationFolder
    from hsi_se.runs.folder import RunFolder

    ablation = AblationFolder(run)
    if ablation.report.is_file() or ablation.plan.is_file():
        from hsi_se.ablation.figures import write_ablation_figures
        from hsi_se.ablation.page import write_reports
        from hsi_se.report.run_figures import parse_format

        ablation = AblationFolder.open(run)
        results = ablation.read_report()
        if figures is not None:
            for path in write_ablation_figures(results, ablation, file_format=parse_format(figures)):
                print(f"figure: {path}")
        write_reports(results, ablation)
        page = ablation.page
    else:
        from hsi_se.report.page import RunFiles, write_page
        from hsi_se.report.run_figures import parse_format, write_figures

        file_format = None if figures is None else parse_format(figures)
        folder = RunFolder.open(run)
        write_page(folder)
        if file_format is not None:
            for path in write_figures(RunFiles.read(folder), file_format=file_format):
                print(f"figure: {path}")
        page = folder.page
    print(f"report: {page}")
    if open_it:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def watch(
    run: Annotated[
        Path, typer.Argument(metavar="RUN|ABLATION", help="The folder that `train` or `ablate` works in.")
    ],
) -> None:
    """Show the training in RUN as it goes: curves, each class's validation accuracy, the time left."""
    from contextlib import suppress

    from rich.console import Console

    from hsi_se.cli.watch import follow

    with suppress(KeyboardInterrupt):  # whoever watches may leave; the training goes on
        follow(run, console=Console(markup=False, emoji=False))
