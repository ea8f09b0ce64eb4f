"""`hsi-se explain`."""

import statistics

from hsi_se.cli.options import DataFolder, Device, RunPath


def explain(run: RunPath, data: DataFolder = None, device: Device = "auto") -> None:
    """Show how each attention gate of RUN treats the classes of the test pixels, as a table and a picture."""
    from hsi_se.runs.folder import RunFolder

    folder = RunFolder.open(run)

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
