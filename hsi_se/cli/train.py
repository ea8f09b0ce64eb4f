"""`hsi-se train` and `resume`."""

from pathlib import Path
from typing import Annotated

import typer

from hsi_se.cli.options import ConfigPath, DataFolder, Device, Overrides, RunOut, Scheduler, Workers
from hsi_se.cli.usage import quote
from hsi_se.errors import ConfigError
from hsi_se.system.processes import is_first


def train(
    config: ConfigPath,
    overrides: Overrides = None,
    data: DataFolder = None,
    out: RunOut = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="0-9", help="Train one run per seed, each with its own split unless split.seed is set."),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run folder if it exists.")] = False,
) -> None:
    """Train the network described by CONFIG. Writes one run folder, or one per seed with --seeds, or per fold."""
    from hsi_se.config.base import parse_seeds
    from hsi_se.config.yaml_file import load_config

    settings = load_config(config, overrides or [])
    is_series = seeds is not None or len(settings.list_folds()) > 1
    if is_series and overwrite:
        why = "split.kind: folds" if seeds is None else "--seeds"
        raise ConfigError(f"--overwrite: has no effect with {why}, which keeps finished runs; leave it out")
    for option, value in (("--workers", workers), ("--scheduler", scheduler)):
        if value is not None and not is_series:
            raise ConfigError(f"{option}: has no effect on a single run, without --seeds and folds; leave it out")

    if is_series:
        draws = range(settings.seed, settings.seed + getattr(settings.split, "repeats", 1))
        chosen = draws if seeds is None else parse_seeds(seeds)
        for override in overrides or []:
            if seeds is not None and override.partition("=")[0].strip() == "seed":
                raise ConfigError(f"--set {override}: has no effect with --seeds; leave one of them out")
        from hsi_se.ablation.file import repeat_over_seeds
        from hsi_se.cli.ablate import run_and_print

        ablation = repeat_over_seeds(settings, chosen)
        run_and_print(ablation, out=out, data=data, device=device, workers=workers, scheduler=scheduler)
        return

    from hsi_se.cli.terminal import start_session
    from hsi_se.workflows import train as experiment

    with start_session(data=data, device=device) as session:
        folder = str(experiment.train(settings, out=out, overwrite=overwrite, session=session))
    _print_run(folder)


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an interrupted run.")],
    data: DataFolder = None,
) -> None:
    """Finish the interrupted training in RUN, with the config and the device that it began with."""
    from hsi_se.runs.lifecycle import open_unfinished

    folder = open_unfinished(run)

    from hsi_se.cli.terminal import start_session
    from hsi_se.workflows import train as experiment

    with start_session(data=data) as session:
        finished = experiment.resume(folder, session=session)
    _print_run(str(finished))


def _print_run(folder: str) -> None:
    if not is_first():
        return
    print(f"run folder: {folder}")
    print(f"next: {quote('hsi-se', 'eval', folder)}")
