"""`hsi-se quickstart`, `train`, `resume`, `ablate` and `tune`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_se.cli.usage import ConfigPath, DataFolder, Device, Log, Overrides, Scheduler, Workers, out_option
from hsi_se.errors import ConfigError, RunError
from hsi_se.system.processes import is_first

if TYPE_CHECKING:
    from hsi_se.ablation.file import Ablation


def quickstart(
    cube: Annotated[Path, typer.Argument(metavar="CUBE", help="The file of the image.")],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="The file of its labels.")],
    overrides: Overrides = None,
    data: DataFolder = None,
    out: Annotated[Path | None, out_option("Folder to write. By default runs/quickstart-CUBE.")] = None,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the config only; train nothing.")] = False,
) -> None:
    """Write a config for CUBE and LABELS, train and evaluate it, and print where the report page is.

    The config is beside the folder, as DIR.yaml. Can be interrupted and resumed with the same command.
    """
    from hsi_se.config.yaml_file import load_config
    from hsi_se.system.files import replacing
    from hsi_se.workflows.inspect_scene import suggest_config, survey_files
    from hsi_se.workflows.train import RUNS

    if dry_run and device != "auto":
        raise ConfigError("--device: has no effect with --dry-run; leave one of them out")
    of_scene = [each for each in overrides or [] if each.startswith("scene.")]
    survey = survey_files([cube, labels], of_scene, data=data)
    text = suggest_config(survey, [each for each in overrides or [] if each not in of_scene])
    folder = out or RUNS / f"quickstart-{survey.name}"
    config = folder.with_name(f"{folder.name}.yaml")
    todo = shlex.join(["hsi-se", "train", str(config), "--out", str(folder)])
    if config.exists() and config.read_text(encoding="utf-8") != text:
        raise RunError(f"{config}: exists with other settings; choose another folder with --out DIR, or run `{todo}`")
    with replacing(config) as draft:
        draft.write_text(text, encoding="utf-8")
    print(f"config: {config}")
    if dry_run:
        print(f"next: {todo}")
        return

    from hsi_se.cli.evaluate import evaluate
    from hsi_se.runs.folder import RunFolder

    if RunFolder(folder).is_unfinished:
        resume(folder, data=data)
    elif not RunFolder(folder).record.is_file():
        train(config, data=data, out=folder, device=device)
    evaluate(folder, data=data, device=device)
    settings = load_config(config)
    if len(settings.list_folds()) > 1:
        split = f"split={{kind: all, validation: {settings.split.validation}, folds: {folder}}}"
        words = ["hsi-se", "train", str(config), "--set", split, "--out", f"{folder}-all"]
        print(f"next: {shlex.join(words)}")


def train(
    config: ConfigPath,
    overrides: Overrides = None,
    data: DataFolder = None,
    out: Annotated[Path | None, out_option("Run folder to write. By default runs/DATE-NAME-DIGEST.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="0-9", help="Train one run per seed, each with its own split unless split.seed is set."),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    log: Log = None,
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

        ablation = repeat_over_seeds(settings, chosen)
        _run_and_print(ablation, out=out, data=data, device=device, workers=workers, scheduler=scheduler, log=log)
        return

    from hsi_se.cli.terminal import start_session
    from hsi_se.workflows import train as experiment

    with start_session(data=data, device=device, log=log) as session:
        folder = str(experiment.train(settings, out=out, overwrite=overwrite, session=session))
    _print_run(folder)


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an interrupted run.")],
    data: DataFolder = None,
    log: Log = None,
) -> None:
    """Finish the interrupted training in RUN, with the config and the device that it began with."""
    from hsi_se.runs.lifecycle import open_unfinished

    folder = open_unfinished(run)

    from hsi_se.cli.terminal import start_session
    from hsi_se.workflows import train as experiment

    with start_session(data=data, log=log) as session:
        finished = experiment.resume(folder, session=session)
    _print_run(str(finished))


def _print_run(folder: str) -> None:
    if is_first():
        print(f"run folder: {folder}")
        print(f"next: {shlex.join(('hsi-se', 'eval', folder))}")


def ablate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An ablation, such as configs/ablations/placement.yaml.")
    ],
    overrides: Overrides = None,
    out: Annotated[Path | None, out_option("Folder to write. By default runs/ablation-NAME-DIGEST.")] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs with their size and time; train nothing.")
    ] = False,
    data: DataFolder = None,
    log: Log = None,
    device: Device = "auto",
) -> None:
    """Train every variant of FILE with every seed, and report which differ significantly.

    Can be interrupted and resumed with the same command.
    """
    from hsi_se.ablation.file import load_ablation

    ablation = load_ablation(file, overrides or [])
    if dry_run:
        given = {"--workers": workers, "--scheduler": scheduler, "--log": log, "--device": device}
        for option, value in given.items():
            if value not in (None, "auto"):
                raise ConfigError(f"{option}: has no effect with --dry-run; leave one of them out")
        from hsi_se.ablation.plan import plan_ablation
        from hsi_se.ablation.run import find_folder
        from hsi_se.cli.tables import print_plan

        print_plan(plan_ablation(ablation, out=out, data=data))
        print(f"folder: {find_folder(ablation, out)}")
        return
    _run_and_print(ablation, out=out, data=data, device=device, workers=workers, scheduler=scheduler, log=log)


def tune(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="A study, such as configs/studies/demo.yaml.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, out_option("Folder to write. By default runs/tune-NAME-DIGEST.")] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    data: DataFolder = None,
    device: Device = "auto",
) -> None:
    """Search the settings named in STUDY inside the training set, then test the best ones once.

    With several folds, each has a search of its own. Can be interrupted and resumed with the same command.
    """
    from hsi_se.ablation.study import load_study

    study = load_study(file, overrides or [])

    from hsi_se.ablation import tune as runner
    from hsi_se.cli.terminal import say, say_notes, start_session

    with start_session(data=data, device=device) as session:
        folder, record = runner.tune(study, out=out, workers=workers, scheduler=scheduler, session=session)
    say_notes(record.notes)
    for number, search in enumerate(record.searches, start=1):
        place = folder.of_search(number, count=len(record.searches))
        if place is not folder:
            say(f"fold {number}", style="bold")
        for key, value in search.chosen.settings.items():
            print(f"{key}: {value}")
        print(f"run folder: {place.path / search.run}")
        print(f"settings: {place.best}")
    for sentence in record.sentences:
        say(sentence, style="bold")
    if place is folder:
        print(f"next: {shlex.join(('hsi-se', 'train', str(place.best)))}")


def _run_and_print(
    ablation: "Ablation",
    *,
    out: Path | None,
    data: Path | None,
    device: str,
    workers: int | None = None,
    scheduler: str | None = None,
    log: list[str] | None = None,
) -> None:
    """Runs an ablation and prints its results; exits with an error code if a run has failed."""
    from hsi_se.ablation import run as runner
    from hsi_se.cli.tables import print_answer
    from hsi_se.cli.terminal import open_loggers
    from hsi_se.cli.watch import watch_ablation
    from hsi_se.progress import Several
    from hsi_se.system.session import Session

    session = Session(data, device, Several(*open_loggers(log)))
    with watch_ablation(ablation) as watcher:
        folder, report = runner.run_ablation(
            ablation, out=out, session=session, workers=workers, scheduler=scheduler, watcher=watcher
        )
    print_answer(report)
    print(f"report: {folder.report_text}")
    if ablation.is_of_seeds and ablation.has_folds and not report.failed:
        print(f"next: {shlex.join(('hsi-se', 'eval', str(folder)))}")
    for failure in report.failed:
        print(f"hsi-se: {failure}: failed: {failure.error}", file=sys.stderr)
    if report.failed:
        raise typer.Exit(2 if all(failure.is_users for failure in report.failed) else 1)
