"""The commands: parse, call one function, print. A user's mistake is one line and exit code 2.

Whatever needs torch is imported inside the command that needs it, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_se.errors import HsiError

if TYPE_CHECKING:
    from hsi_se.evaluation.metrics import Evaluation
    from hsi_se.records import RunFolder

app = typer.Typer(
    name="hsi-se",
    help="Hyperspectral image classification with HybridSN and attention.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A YAML config, such as configs/demo.yaml.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `hsi-se train` prints it.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="a.b=c", help="Change a setting: any dotted key, any YAML value. Repeatable."
    ),
]
DataFolder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Where scenes are looked for before datasets/.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


@app.command()
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    data: DataFolder = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="DIR", help="The run folder to write. [default: runs/DATE-NAME-DIGEST]"
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run folder if it exists.")
    ] = False,
) -> None:
    """Train the network that CONFIG describes and write a run folder."""
    from hsi_se.config import load_config

    settings = load_config(config, overrides or [])

    from hsi_se import experiment
    from hsi_se.progress import show_progress

    with show_progress() as observer:
        folder = experiment.train(
            settings, data=data, run=run, device=device, overwrite=overwrite, observer=observer
        )
    print(f"run folder: {folder}")
    print(f"next: hsi-se eval {folder}")


@app.command(name="eval")
def evaluate(run: RunPath, data: DataFolder = None, device: Device = "auto") -> None:
    """Print the accuracies of RUN on its test pixels; write its report and its maps."""
    from hsi_se.records import RunFolder

    folder = RunFolder.open(run)

    from hsi_se import experiment
    from hsi_se.progress import show_progress

    with show_progress() as observer:
        evaluation = experiment.evaluate(folder, data=data, device=device, observer=observer)
    _print_evaluation(evaluation, folder)


@app.command()
def info(config: ConfigPath, overrides: Overrides = None, data: DataFolder = None) -> None:
    """Print each stage of CONFIG's network: output shape, parameters, MACs, and what sits in its slot."""
    from rich.console import Console
    from rich.table import Table

    from hsi_se.config import load_config

    settings = load_config(config, overrides or [])

    from hsi_se.experiment import describe_network

    network = describe_network(settings, data=data)
    table = Table(title=network.title, title_justify="left", show_footer=True)
    table.add_column("stage", f"total for {network.input_shape}", no_wrap=True)
    table.add_column("output", no_wrap=True)
    table.add_column("parameters", f"{network.num_parameters:,}", justify="right", no_wrap=True)
    table.add_column("MACs", f"{network.macs:,}", justify="right", no_wrap=True)
    table.add_column("what it is", f"FLOPs = 2 × MACs = {2 * network.macs:,}")
    for row in network.rows:
        table.add_row(row.name, str(row.shape), f"{row.num_parameters:,}", f"{row.macs:,}", row.contents)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a config, for editors that check YAML while one types."""
    import json

    from hsi_se.config import Config

    print(json.dumps(Config.model_json_schema(), indent=2))


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 2 the user's mistake, 1 ours, 130 interrupted."""
    try:
        app()
    except HsiError as error:
        print("hsi-se:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("hsi-se: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)


def _print_evaluation(evaluation: "Evaluation", folder: "RunFolder") -> None:
    from rich.console import Console
    from rich.table import Table

    from hsi_se.report.tables import list_class_rows, percent

    table = Table(title=f"{evaluation.num_test:,} test pixels", title_justify="left")
    table.add_column("label", justify="right")
    table.add_column("class", overflow="fold")
    for heading in ("support", "producer's %", "user's %", "F1 %"):
        table.add_column(heading, justify="right")
    for row in list_class_rows(evaluation):
        table.add_row(
            str(row.label),
            row.name,
            str(row.support),
            percent(row.producers),
            percent(row.users),
            percent(row.f1),
        )
    Console().print(table)
    print(
        f"OA {percent(evaluation.overall_accuracy)} %   AA {percent(evaluation.average_accuracy)} %   "
        f"κ {evaluation.kappa:.4f}"
    )
    print(f"maps:   {folder.map_figure}, {folder.labelled_map_figure}")
    print(f"report: {folder.report_text}")
