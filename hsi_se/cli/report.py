"""The commands that look at a run or an ablation: `hsi-se report`, `explain`, and `watch` while it trains."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_se.cli.options import DataFolder, Device, RunOrAblation, choose
from hsi_se.errors import ConfigError

if TYPE_CHECKING:
    from hsi_se.ablation.record import AblationFolder


def report(
    run: RunOrAblation,
    figures: Annotated[
        str | None, choose("--figures", "png", "pdf", "svg", help="Also draw all figures, one column (3.5 in) wide.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="HTML file to write. By default report.html in the folder."),
    ] = None,
) -> None:
    """Write the report of an evaluated run or an ablation as one HTML file that works offline."""
    from hsi_se.ablation.record import AblationFolder
    from hsi_se.runs.folder import RunFolder

    if out is not None and (out.is_dir() or out.suffix.casefold() not in (".html", ".htm")):
        raise ConfigError(f"--out {out}: name a file that ends in .html")
    written: list[Path] = []
    folder: AblationFolder | RunFolder
    if _is_ablation(run):
        from hsi_se.ablation.figures import write_ablation_figures
        from hsi_se.ablation.tables import write_reports

        folder = AblationFolder.open(run)
        results = folder.read_report()
        if figures is not None:
            written = write_ablation_figures(results, folder, file_format=figures)
        write_reports(results, folder)
    else:
        from hsi_se.report.explorer import RunFiles
        from hsi_se.report.page import write_page
        from hsi_se.report.run_figures import write_figures

        folder = RunFolder.open(run, pooled=True)
        write_page(folder)
        if figures is not None:
            written = write_figures(RunFiles.read(folder), file_format=figures)
    for path in written:
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


def _is_ablation(path: Path) -> bool:
    from hsi_se.ablation.record import AblationFolder

    folder = AblationFolder(path)
    return folder.report.is_file() or folder.plan.is_file()


def watch(run: RunOrAblation) -> None:
    """Follow the training in a folder: the epoch, loss, validation accuracy and time left of each run."""
    from contextlib import suppress

    from rich.console import Console

    from hsi_se.cli.watch import follow

    with suppress(KeyboardInterrupt):  # ends the watching; the training continues
        follow(run, console=Console(markup=False, emoji=False))


def explain(run: RunOrAblation, data: DataFolder = None, device: Device = "auto") -> None:
    """Show how attention gates treat the classes of the test pixels, and what training mode would cost.

    Of an ablation or of seeds, every run is explained; intervals are over the seeds.
    """
    from hsi_se.ablation.record import AblationFolder
    from hsi_se.runs.folder import RunFolder

    if _is_ablation(run):
        _explain_ablation(AblationFolder.open(run), data=data, device=device)
        return
    folder = RunFolder.open(run)

    import numpy as np

    from hsi_se.cli.terminal import print_table, say, start_session
    from hsi_se.report.tables import number
    from hsi_se.workflows import explain as explaining

    with start_session(data=data, device=device) as session:
        explanation = explaining.explain(folder, session=session)
    if explanation.gates:
        print_table(
            "gates over the classes of the test pixels",
            ("point", "gate", "mean excitation", "standard deviation", "ω², %"),
            [
                (
                    gate.point,
                    gate.block,
                    f"{np.mean(gate.mean_excitation):.3f}",
                    f"{gate.between_class_std:.4f}",
                    number(gate.between_class_share, 1, factor=100),
                )
                for gate in explanation.gates
            ],
            left=(0, 1),
        )
    for block in explanation.skipped:
        say(f"note: {block} does not gate channels and is skipped")
    for gate in explanation.gates:
        if gate.no_spectrum:
            say(f"note: {gate.point} is not mapped to the spectrum: {gate.no_spectrum}")
    for path in (folder.explanation, folder.explanation_figure):
        if path.is_file():
            print(f"wrote:  {path}")
    say(explanation.gates_in_words)
    say(explanation.modes_in_words)


def _explain_ablation(folder: "AblationFolder", *, data: Path | None, device: str) -> None:
    from hsi_se.ablation.run import explain_ablation
    from hsi_se.cli.terminal import print_table, say, start_session
    from hsi_se.report.tables import describe_gates, describe_modes, number

    with start_session(data=data, device=device) as session:
        found = explain_ablation(folder, session=session)
    rows = []
    for variant, runs in found.items():
        for seed, run in runs.items():
            shares = [gate.between_class_share for gate in run.gates] or [None]
            passes = " and ".join(number(each, 1, factor=100) for each in run.modes.training or ()) or "–"
            ends = (number(each, 1, factor=100) for each in (shares[0], shares[-1], run.modes.evaluation))
            rows.append((variant, str(seed), *ends, passes))
    print_table(
        "gates and modes over the test pixels of every run",
        ("variant", "seed", "ω² first, %", "ω² last, %", "evaluation mode, %", "training mode, %"),
        rows,
    )
    for variant, runs in found.items():
        gates = describe_gates([run.gates for run in runs.values()])
        say(f"{variant}: {gates} {describe_modes([run.modes for run in runs.values()])}")
