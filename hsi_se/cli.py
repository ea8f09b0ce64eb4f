"""The commands: parse, call one function, print. A user's mistake is one line and exit code 2.

Whatever needs torch is imported inside the command that needs it, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_se.errors import ConfigError, HsiError

if TYPE_CHECKING:
    from rich.console import Console

    from hsi_se.evaluation.assessment import Assessment
    from hsi_se.evaluation.audit import SplitAudit
    from hsi_se.records import SeriesReport
    from hsi_se.series import Gap

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


RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="DIR", help="The run folder to write. [default: runs/DATE-NAME-DIGEST]"),
]


@app.command()
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    data: DataFolder = None,
    run: RunOption = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="0-9", help="Train once a seed, each with its own split unless split.seed is set."
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run folder if it exists.")
    ] = False,
) -> None:
    """Train the network that CONFIG describes and write a run folder, or one a seed."""
    from hsi_se.config import load_config

    settings = load_config(config, overrides or [])
    if seeds is not None and overwrite:
        raise ConfigError(
            "--overwrite: has no effect beside --seeds, which keeps finished runs; leave it out"
        )

    from hsi_se import experiment, series
    from hsi_se.progress import show_progress

    with show_progress() as observer:
        if seeds is None:
            folder = str(
                experiment.train(
                    settings, data=data, run=run, device=device, overwrite=overwrite, observer=observer
                )
            )
        else:
            numbers = series.parse_seeds(seeds)
            folder = str(
                series.train_series(settings, numbers, data=data, run=run, device=device, observer=observer)
            )
    print(f"run folder: {folder}")
    print(f"next: hsi-se eval {folder}")


@app.command(name="eval")
def evaluate(run: RunPath, data: DataFolder = None, device: Device = "auto") -> None:
    """Print the accuracies of RUN, or of a folder of seeds, beside the floor; write reports and maps."""
    from hsi_se.records import RunFolder, SeriesFolder

    is_series = bool(SeriesFolder(run).list_runs())
    folder = SeriesFolder.open(run) if is_series else RunFolder.open(run)

    from hsi_se import experiment, series
    from hsi_se.progress import show_progress

    with show_progress() as observer:
        if isinstance(folder, SeriesFolder):
            report = series.evaluate_series(folder, data=data, device=device, observer=observer)
        else:
            assessment = experiment.assess_run(folder, data=data, device=device, observer=observer)
    if isinstance(folder, SeriesFolder):
        _print_series(report)
    else:
        _print_assessment(assessment)
        print(f"maps:   {folder.map_figure}, {folder.labelled_map_figure}")
    print(f"report: {folder.report_text}")


@app.command()
def split(
    config: ConfigPath,
    overrides: Overrides = None,
    data: DataFolder = None,
    png: Annotated[
        Path | None,
        typer.Option("--png", metavar="FILE", help="The picture. [default: in runs/]"),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the audit, with the keys of report.json."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the partition map as .mat or .npz, as split.partition reads it."
        ),
    ] = None,
) -> None:
    """Draw the split of CONFIG and print what it gives away; trains nothing and needs no cube."""
    import json

    from hsi_se.config import load_config
    from hsi_se.experiment import RUNS, audit_config
    from hsi_se.records import replacing
    from hsi_se.report.figures import save_split
    from hsi_se.sampling.masks import write_partition

    settings = load_config(config, overrides or [])
    truth, audit = audit_config(settings, data=data)
    sides = audit.split.to_sides(truth.shape)
    if export is not None:
        with replacing(export) as draft:
            write_partition(sides, draft)
    if json_file is not None:
        with replacing(json_file) as draft:
            draft.write_text(
                json.dumps(audit.values(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
    picture = png or RUNS / f"{settings.name or 'config'}-split-{audit.split.digest[:8]}.png"
    save_split(sides, picture, title=f"{truth.name}: {settings.split.kind} split")
    _print_audit(audit)
    for path in (picture, json_file, export):
        if path is not None:
            print(f"wrote:  {path}")


@app.command()
def gap(
    config: ConfigPath,
    overrides: Overrides = None,
    data: DataFolder = None,
    run: RunOption = None,
    device: Device = "auto",
) -> None:
    """Train CONFIG's network on a random and on a blocks split of one size; print the gap."""
    from hsi_se.config import load_config

    settings = load_config(config, overrides or [])

    from hsi_se import series
    from hsi_se.progress import show_progress

    with show_progress() as observer:
        found = series.measure_gap(settings, data=data, run=run, device=device, observer=observer)
    _print_gap(found)


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
    except OSError as error:
        if error.filename is None:
            raise
        message = f"{error.filename}: {error.strerror}; check the path, its rights and the room on the disk"
        print(f"hsi-se: {message}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("hsi-se: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)


def _make_console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 110)


def _print_assessment(assessment: "Assessment") -> None:
    from rich.table import Table

    from hsi_se.report.tables import describe_leakage, list_accuracy_rows, list_class_rows, percent

    evaluation, floor = assessment.evaluation, assessment.audit.location_floor
    table = Table(title=f"{evaluation.num_test:,} test pixels", title_justify="left")
    table.add_column("label", justify="right")
    table.add_column("class", overflow="fold")
    for heading in ("support", "producer's %", "user's %", "F1 %", "floor's producer's %"):
        table.add_column(heading, justify="right")
    for row, of_floor in zip(list_class_rows(evaluation), floor.producers_accuracy, strict=True):
        accuracies = (percent(value) for value in (row.producers, row.users, row.f1, of_floor))
        table.add_row(str(row.label), row.name, str(row.support), *accuracies)
    console = _make_console()
    console.print(table)
    for method in list_accuracy_rows(assessment):
        numbers = method.evaluation
        print(
            f"{method.name + ':':<18} OA {percent(numbers.overall_accuracy):>6} %   "
            f"AA {percent(numbers.average_accuracy):>6} %   κ {numbers.kappa:.4f}"
        )
    print(describe_leakage(assessment.audit.leakage))
    print(
        f"Expected calibration error {percent(assessment.calibration.ece)} %, "
        f"{percent(assessment.calibration_scaled.ece)} % at temperature {assessment.temperature:.2f}."
    )
    print(assessment.verdict)


def _print_audit(audit: "SplitAudit") -> None:
    from rich.table import Table

    from hsi_se.report.tables import describe_leakage, percent

    table = Table(title=f"split {audit.split.digest[:8]}", title_justify="left", show_footer=True)
    totals = [f"{total:,}" for total in audit.counts.sum(axis=0)]
    table.add_column("label", justify="right")
    table.add_column("class", "all", overflow="fold")
    for heading, total in zip(("training", "validation", "test", "buffer"), totals, strict=True):
        table.add_column(heading, total, justify="right")
    for label, name, counts in zip(audit.class_ids, audit.class_names, audit.counts, strict=True):
        table.add_row(str(label), name, *(str(count) for count in counts))
    _make_console().print(table)
    for note in audit.split.notes:
        print(f"note: {note}")
    print(describe_leakage(audit.leakage))
    floor = audit.location_floor
    print(
        f"location floor: OA {percent(floor.overall_accuracy)} %   AA {percent(floor.average_accuracy)} %   "
        f"κ {floor.kappa:.4f}"
    )


def _print_series(report: "SeriesReport") -> None:
    from rich.table import Table

    from hsi_se.report.tables import describe_summary, list_series_rows, percent

    title = (
        f"{report.name} on {report.scene}, n = {len(report.seeds)} seeds, mean ± sample std [95 % interval]"
    )
    classes = Table(title=title, title_justify="left")
    classes.add_column("label", justify="right")
    classes.add_column("class", overflow="fold")
    classes.add_column("producer's %", justify="right")
    for label, name, summary in report.per_class:
        classes.add_row(str(label), name, describe_summary(summary))
    table = Table()
    for heading in ("", "OA %", "AA %", "κ × 100"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in list_series_rows(report):
        table.add_row(*row)
    console = _make_console()
    console.print(classes)
    console.print(table)
    leaking = report.summaries["leakage.test_patches_with_train_pixels"].mean
    print(f"{percent(leaking)} % of the test patches hold pixels of the training side. {report.about_splits}")


def _print_gap(found: "Gap") -> None:
    from rich.table import Table

    from hsi_se.report.tables import list_accuracy_rows, percent

    table = Table(title="the same network, as many training pixels of each class", title_justify="left")
    for heading in ("", "random OA %", "blocks OA %", "random AA %", "blocks AA %"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row, other in zip(list_accuracy_rows(found.random), list_accuracy_rows(found.blocks), strict=True):
        pair = (row.evaluation, other.evaluation)
        table.add_row(
            row.name,
            *(percent(evaluation.overall_accuracy) for evaluation in pair),
            *(percent(evaluation.average_accuracy) for evaluation in pair),
        )
    sides = (found.random.audit, found.blocks.audit)
    leaking = [percent(audit.leakage.test_patches_with_train_pixels) for audit in sides]
    table.add_row("test patches that leak", *leaking, "", "")
    table.add_row("training pixels", *(f"{len(audit.split.train):,}" for audit in sides), "", "")
    table.add_row("test pixels", *(f"{len(audit.split.test):,}" for audit in sides), "", "")
    _make_console().print(table)
    print(f"optimism gap: {100 * found.optimism:.2f} points of OA")
    print(f"random: {found.random.verdict}")
    print(f"blocks: {found.blocks.verdict}")
    for note in found.blocks.audit.split.notes:
        print(f"note: {note}")
