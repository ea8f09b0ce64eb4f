"""`hsi-se train`."""

from pathlib import Path
from typing import Annotated

import typer

from hsi_se.cli.options import DataFolder, Device, Overrides, RunOption
from hsi_se.errors import ConfigError
from hsi_se.system.processes import is_first


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
            metavar="0-9", help="Train one run per seed. Each draws its own split unless split.seed is set."
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
) -> None:
    """Train the network described by CONFIG. Writes one run folder, or one per seed with --seeds."""
    if resume is not None:
        given = {
            "CONFIG": config, "--set": overrides, "--run": run, "--seeds": seeds, "--overwrite": overwrite,
            "--device": device != "auto",
        }  # fmt: skip
        beside = [name for name, value in given.items() if value]
        if beside:
            raise ConfigError(f"--resume {resume}: goes on as it began; leave out {', '.join(beside)}")
        _print_run(_resume(resume, data=data))
        return
    if config is None:
        raise ConfigError("train: give a CONFIG, or --resume RUN")
    from hsi_se.config.base import parse_seeds
    from hsi_se.config.yaml_file import load_config

    settings = load_config(config, overrides or [])
    if seeds is not None and overwrite:
        raise ConfigError(
            "--overwrite: has no effect beside --seeds, which keeps finished runs; leave it out"
        )

    if seeds is not None:
        from hsi_se.ablation.file import repeat_over_seeds
        from hsi_se.cli.ablate import run_and_print

        run_and_print(repeat_over_seeds(settings, parse_seeds(seeds)), out=run, data=data, device=device)
        return

    from hsi_se.cli.terminal import start_session
    from hsi_se.workflows import train as experiment

    with start_session(data=data, device=device) as session:
        folder = str(experiment.train(settings, out=run, overwrite=overwrite, session=session))
    _print_run(folder)


def _resume(run: Path, *, data: Path | None) -> str:
    from hsi_se.runs.lifecycle import open_unfinished

    folder = open_unfinished(run)

    from hsi_se.cli.terminal import start_session
    from hsi_se.workflows import train as experiment

    with start_session(data=data) as session:
        return str(experiment.resume(folder, session=session))


def _print_run(folder: str) -> None:
    if not is_first():
        return
    print(f"run folder: {folder}")
    print(f"next: hsi-se eval {folder}")
