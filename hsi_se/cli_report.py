"""The command that makes a run one can look at: `hsi-se report`."""

from pathlib import Path
from typing import Annotated

import typer

from hsi_se.errors import RunError


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="An evaluated run folder.")],
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write RUN's report as one HTML file that needs no network: a map to explore, tables, curves."""
    from hsi_se.records import RunFolder, SeriesFolder

    seeds = SeriesFolder(run).list_runs()
    if seeds:
        raise RunError(f"{run}: is a series of runs; name one of them, such as {seeds[0]}")
    folder = RunFolder.open(run)

    from hsi_se.report.page import write_page

    write_page(folder)
    print(f"report: {folder.page}")
    if open_it:
        import webbrowser

        webbrowser.open(folder.page.resolve().as_uri())
