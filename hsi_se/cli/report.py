"""The commands that look at a run or an ablation: `hsi-se report`, `explain`, and `watch` while it trains."""

from pathlib import Path
from typing import Annotated

import typer

from hsi_se.cli.options import DataFolder, Device, RunOrAblation, RunPath, choose
from hsi_se.errors import ConfigError


def report(
    run: RunOrAblation,
    figures: Annotated[
        str | None,
        choose("--figures", "png", "pdf", "svg", help="Also draw all figures, one column (3.5 in) wide."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="HTML file to write. By default report.html in the folder."
        ),
    ] = None,
) -> None:
    """Write the report of an evaluated run or an ablation as one HTML file that works offline."""
    from hsi_se.ablation.record import AblationFolder
    from hsi_se.runs.folder import RunFolder

    if out is not None and (out.is_dir() or out.suffix.casefold() not in (".html", ".htm")):
        raise ConfigError(f"--out {out}: name a file that ends in .html")
    ablation = AblationFolder(run)
    if ablation.report.is_file() or ablation.plan.is_file():
        from hsi_se.ablation.figures import write_ablation_figures
        from hsi_se.ablation.page import write_reports

        ablation = AblationFolder.open(run)
        results = ablation.read_report()
        if figures is not None:
            for path in write_ablation_figures(results, ablation, file_format=figures):
                print(f"figure: {path}")
        write_reports(results, ablation)
        page = ablation.page
    else:
        from hsi_se.report.page import RunFiles, write_page
        from hsi_se.report.run_figures import write_figures

        folder = RunFolder.open(run)
        write_page(folder)
        if figures is not None:
            for path in write_figures(RunFiles.read(folder), file_format=figures):
                print(f"figure: {path}")
        page = folder.page
    if out is not None:
        from hsi_se.system.files import replacing

        with replacing(out) as draft:
            draft.write_bytes(page.read_bytes())
        page = out
    print(f"report: {page}")
    if open_it:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def watch(run: RunOrAblation) -> None:
    """Follow the training in a folder: the epoch, loss, validation accuracy and time left of each run."""
    from contextlib import suppress

    from rich.console import Console

    from hsi_se.cli.watch import follow

    with suppress(KeyboardInterrupt):  # ends the watching; the training continues
        follow(run, console=Console(markup=False, emoji=False))


def explain(run: RunPath, data: DataFolder = None, device: Device = "auto") -> None:
    """Show how each attention gate of RUN treats the classes of the test pixels, as a table and a picture."""
    from hsi_se.runs.folder import RunFolder

    folder = RunFolder.open(run)

    import statistics

    from rich.table import Table

    from hsi_se.cli.terminal import make_console, say, start_session
    from hsi_se.workflows import explain as explaining

    with start_session(data=data, device=device) as session:
        explanation = explaining.explain(folder, session=session)
    table = Table(title="gates over the classes of the test pixels", title_justify="left")
    for heading in ("point", "gate", "mean excitation", "standard deviation", "share of the variance"):
        table.add_column(heading, justify="left" if heading in ("point", "gate") else "right")
    for gate in explanation.gates:
        values = [value for row in gate.mean_excitation for value in row]
        share = "–" if gate.between_class_share is None else f"{100 * gate.between_class_share:.1f} %"
        table.add_row(
            gate.point, gate.block, f"{statistics.fmean(values):.3f}", f"{gate.between_class_std:.4f}", share
        )
    make_console().print(table)
    for block in explanation.skipped:
        say(f"note: {block} does not gate channels and is skipped")
    for gate in explanation.gates:
        if gate.no_spectrum:
            say(f"note: {gate.point} is not mapped to the spectrum: {gate.no_spectrum}")
    for path in (folder.explanation, folder.explanation_figure):
        print(f"wrote:  {path}")
