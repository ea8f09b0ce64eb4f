"""`hsi-se explain`."""

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `hsi-se train` prints it.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Where scenes are looked for before datasets/."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Say what each gate of RUN does to each class of its test pixels; draw it."""
    from hsi_se.runs.folder import RunFolder

    folder = RunFolder.open(run)

    from rich.table import Table

    from hsi_se.cli.terminal import make_console, start_session
    from hsi_se.workflows import explain as explaining

    with start_session(data=data, device=device) as session:
        explanation = explaining.explain(folder, session=session)
    table = Table(title="between the classes of the test pixels", title_justify="left")
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
        print(f"note: {block} gates no whole channels")
    for gate in explanation.gates:
        if gate.no_spectrum:
            print(f"note: {gate.point} is not mapped to the spectrum: {gate.no_spectrum}")
    for path in (folder.explanation, folder.explanation_figure):
        print(f"wrote:  {path}")
