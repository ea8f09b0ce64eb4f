"""The commands: parse, call one function, print. A user's mistake is one line and exit code 2.

Whatever needs torch is imported inside the command that needs it, so that `--help` answers at once.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from hsi_se import cli_report
from hsi_se.cli_ablate import ablate, explain
from hsi_se.cli_scene import app as scene_app
from hsi_se.errors import ConfigError, HsiError, Interrupted
from hsi_se.launcher import is_first

app = typer.Typer(
    name="hsi-se",
    help="Hyperspectral image classification with HybridSN and attention.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(scene_app, name="scene")
app.command()(ablate)
app.command()(explain)
app.command()(cli_report.report)
app.command()(cli_report.watch)

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
    typer.Option("--run", metavar="DIR", help="The run folder. Unless given: runs/DATE-NAME-DIGEST."),
]


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="A YAML config, such as configs/demo.yaml.")
    ] = None,
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
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Finish an interrupted run, with its own config, data and device."),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Only time a few steps, stage by stage, beside the least they take."),
    ] = False,
) -> None:
    """Train the network that CONFIG describes and write a run folder, or one a seed."""
    if resume is not None:
        given = {
            "CONFIG": config, "--set": overrides, "--run": run, "--seeds": seeds, "--overwrite": overwrite,
            "--profile": profile, "--device": device != "auto",
        }  # fmt: skip
        beside = [name for name, value in given.items() if value]
        if beside:
            raise ConfigError(f"--resume {resume}: goes on as it began; leave out {', '.join(beside)}")
        _print_run(_resume(resume, data=data))
        return
    if config is None:
        raise ConfigError("train: give a CONFIG, or --resume RUN")
    from hsi_se.config_file import load_config
    from hsi_se.settings import parse_seeds

    settings = load_config(config, overrides or [])
    if seeds is not None and overwrite:
        raise ConfigError(
            "--overwrite: has no effect beside --seeds, which keeps finished runs; leave it out"
        )

    if profile:
        if seeds is not None or run is not None or overwrite:
            raise ConfigError("--profile: writes no run; leave --seeds, --run and --overwrite out")
        from hsi_se.profiling import profile_training
        from hsi_se.terminal import print_profile

        print_profile(profile_training(settings, data=data, device=device))
        return

    from hsi_se import experiment, series
    from hsi_se.terminal import show_progress

    with show_progress() as observer:
        if seeds is None:
            folder = str(
                experiment.train(
                    settings, data=data, run=run, device=device, overwrite=overwrite, observer=observer
                )
            )
        else:
            numbers = parse_seeds(seeds)
            folder = str(
                series.train_series(settings, numbers, data=data, run=run, device=device, observer=observer)
            )
    _print_run(folder)


def _resume(run: Path, *, data: Path | None) -> str:
    from hsi_se.lifecycle import open_unfinished

    folder = open_unfinished(run)

    from hsi_se import experiment
    from hsi_se.terminal import show_progress

    with show_progress() as observer:
        return str(experiment.resume(folder, data=data, observer=observer))


def _print_run(folder: str) -> None:
    if not is_first():
        return
    print(f"run folder: {folder}")
    print(f"next: hsi-se eval {folder}")


@app.command(name="eval")
def evaluate(
    run: RunPath,
    data: DataFolder = None,
    device: Device = "auto",
    scene: Annotated[
        str | None,
        typer.Option(
            metavar="SCENE",
            help="Evaluate on another scene: a known name, a config, a file, or {cube: FILE, labels: FILE}.",
        ),
    ] = None,
) -> None:
    """Print the accuracies of RUN, or of a folder of seeds, beside the floor; write reports and maps."""
    from hsi_se.records import RunFolder
    from hsi_se.series_record import SeriesFolder

    if scene is not None:
        from hsi_se.cross_scene import evaluate_on, parse_scene
        from hsi_se.terminal import print_cross_scene, show_progress

        with show_progress() as observer:
            found = evaluate_on(run, parse_scene(scene), data=data, device=device, observer=observer)
        print_cross_scene(found)
        return

    is_series = bool(SeriesFolder(run).list_runs())
    folder = SeriesFolder.open(run) if is_series else RunFolder.open(run)

    from hsi_se import experiment, series
    from hsi_se.terminal import print_assessment, print_series, show_progress

    with show_progress() as observer:
        if isinstance(folder, SeriesFolder):
            report = series.evaluate_series(folder, data=data, device=device, observer=observer)
        else:
            assessment = experiment.assess_run(folder, data=data, device=device, observer=observer)
    if isinstance(folder, SeriesFolder):
        print_series(report)
    else:
        print_assessment(assessment)
        print(f"maps:   {folder.map_figure}, {folder.labelled_map_figure}")
        print(f"page:   {folder.page}")
    print(f"report: {folder.report_text}")


@app.command(name="map")
def map_scene(
    run: RunPath,
    scene: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME", help="Another scene: a file, or a known scene. Unless given: RUN's own."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="scene.b=c", help="A setting of the scene, such as scene.scale=10000."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder to write. Unless given: RUN/map, or RUN/map-NAME."),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write each class's probability, and the entropy.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="dense, or patches: the same map one patch at a time.")
    ] = "dense",
    scheduler: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:8786", help="A Dask cluster that takes the tiles.")
    ] = None,
    data: DataFolder = None,
    device: Device = "auto",
) -> None:
    """Map a whole scene with what RUN has learned: ENVI, GeoTIFF and PNG. Interrupted, it goes on later."""
    from hsi_se.records import RunFolder

    folder = RunFolder.open(run)

    from hsi_se import cartography
    from hsi_se.terminal import show_progress

    with show_progress() as observer:
        written = cartography.write_map(
            folder,
            scene=scene,
            overrides=overrides or [],
            out=out,
            probabilities=probabilities,
            engine=cartography.parse_engine(engine),
            scheduler=scheduler,
            data=data,
            device=device,
            observer=observer,
        )
    for path in written:
        print(f"wrote:  {path}")


@app.command()
def export(
    run: RunPath,
    file_format: Annotated[str, typer.Option("--format", help="onnx or torch.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file. Unless given: RUN/model.onnx or RUN/model.pt2."),
    ] = None,
) -> None:
    """Write RUN's network, its reduction inside, as one file that other runtimes read."""
    from hsi_se.records import RunFolder

    folder = RunFolder.open(run)

    from hsi_se import export as exporting

    print(f"wrote:  {exporting.export(folder, file_format=file_format, out=out)}")


@app.command()
def split(
    config: ConfigPath,
    overrides: Overrides = None,
    data: DataFolder = None,
    png: Annotated[
        Path | None,
        typer.Option("--png", metavar="FILE", help="The picture. Unless given: in runs/."),
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

    from hsi_se.config_file import load_config
    from hsi_se.durable import replacing
    from hsi_se.experiment import RUNS
    from hsi_se.preview import audit_config
    from hsi_se.report.figures import save_split
    from hsi_se.sampling.masks import PARTITIONS, write_partition
    from hsi_se.terminal import print_audit

    for option, path, endings in (("--png", png, _PICTURES), ("--export", export, PARTITIONS)):
        if path is not None and (path.is_dir() or path.suffix.casefold() not in endings):
            raise ConfigError(f"{option} {path}: name a file that ends in {', '.join(endings)}")
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
    print_audit(audit)
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
    from hsi_se.config_file import load_config

    settings = load_config(config, overrides or [])

    from hsi_se import series
    from hsi_se.terminal import print_gap, show_progress

    with show_progress() as observer:
        found = series.measure_gap(settings, data=data, run=run, device=device, observer=observer)
    print_gap(found)
    print(f"runs:   {found.folder}")


@app.command()
def info(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A YAML config.")] = None,
    overrides: Overrides = None,
    data: DataFolder = None,
    points: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="List the points of a network, and the blocks that fit there."),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare-attention", help="What every block costs at every point of CONFIG's network."
        ),
    ] = False,
) -> None:
    """Print each stage of CONFIG's network: output shape, parameters, MACs, and what sits in its slot."""
    from hsi_se.config_file import load_config

    if (config is None) == (points is None):
        raise ConfigError("info: give a CONFIG, or --points NAME without one")
    if points is not None and (overrides or compare or data is not None):
        raise ConfigError("--points: --set, --data and --compare-attention have no effect beside it")
    settings = None if config is None else load_config(config, overrides or [])

    from hsi_se import preview, terminal

    if points is not None:
        terminal.print_points(points, preview.describe_points(points))
    elif settings is not None and compare:
        with terminal.show_progress() as observer:
            rows = preview.compare_attention(settings, data=data, observer=observer)
        terminal.print_block_costs(rows)
    elif settings is not None:
        terminal.print_network(preview.describe_network(settings, data=data))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a config, for editors that check YAML while one types."""
    import json

    from hsi_se.config import Config

    print(json.dumps(Config.model_json_schema(), indent=2))


_PICTURES = (".png", ".pdf", ".svg")
# Of every mistake in the words of a command; typer has no public name for it.
_UsageError: Any = typer.BadParameter.__base__
_INTERRUPTED = 130


def _refuse_bytes(words: Iterable[str]) -> None:
    """Raises ConfigError for a word that is no UTF-8: not every library beneath opens such files."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{word!a}: is no text in UTF-8; rename the file or folder") from None


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 2 the user's mistake, 1 ours, 130 or 143 interrupted."""
    try:
        _refuse_bytes(sys.argv)
        code = app(prog_name="hsi-se", standalone_mode=False)
        if code == _INTERRUPTED:  # a Ctrl-C that typer has taken
            raise KeyboardInterrupt
        sys.exit(code or 0)
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        if context is not None and len(sys.argv) == 1:
            print(context.get_help(), file=sys.stderr)
        else:
            command = "hsi-se" if context is None else context.command_path
            message = " ".join(error.format_message().split()).rstrip(".")
            print(f"{command}: {message}; see `{command} --help`", file=sys.stderr)
        sys.exit(2)
    except HsiError as error:
        if is_first():  # of several processes, one speaks
            print("hsi-se:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        path = error.filename2 or error.filename  # of a move, where to
        message = f"{path}: {error.strerror}; check the path, its rights and the room on the disk"
        print(f"hsi-se: {message}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        what = next(iter(str(error).splitlines()), "") or "no more is to be had"
        if isinstance(error, RuntimeError) and "memory" not in what:  # torch's own kind of MemoryError
            raise
        print(f"hsi-se: not enough memory ({what}); take a smaller scene, patch or batch", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        if is_first():
            print(f"hsi-se: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        print("hsi-se: interrupted; the same command goes on with what is finished", file=sys.stderr)
        sys.exit(_INTERRUPTED)
