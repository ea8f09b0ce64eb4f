"""`hsi-se ablate`, and runs over seeds or folds."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_se.cli.options import DataFolder, Device, Overrides, Scheduler, Workers, out_folder
from hsi_se.cli.usage import quote
from hsi_se.errors import ConfigError

if TYPE_CHECKING:
    from hsi_se.ablation.file import Ablation


def ablate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An ablation, such as configs/ablations/placement.yaml.")
    ],
    overrides: Overrides = None,
    out: Annotated[Path | None, out_folder("Folder to write. By default runs/ablation-NAME-DIGEST.")] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs with their size and time; train nothing.")
    ] = False,
    data: DataFolder = None,
    device: Device = "auto",
) -> None:
    """Train every variant of FILE with every seed, and report which differ significantly.

    Can be interrupted and resumed with the same command.
    """
    from hsi_se.ablation.file import load_ablation

    ablation = load_ablation(file, overrides or [])

    if dry_run:
        for option, value in (("--workers", workers), ("--scheduler", scheduler), ("--device", device)):
            if value not in (None, "auto"):
                raise ConfigError(f"{option}: has no effect with --dry-run; leave one of them out")
        from hsi_se.ablation.plan import plan_ablation
        from hsi_se.ablation.run import find_folder
        from hsi_se.cli.tables import print_plan

        print_plan(plan_ablation(ablation, out=out, data=data))
        print(f"folder: {find_folder(ablation, out)}")
        return
    run_and_print(ablation, out=out, data=data, device=device, workers=workers, scheduler=scheduler)


def run_and_print(
    ablation: "Ablation",
    *,
    out: Path | None,
    data: Path | None,
    device: str,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Runs an ablation and prints its results; exits with an error code if a run has failed."""
    from hsi_se.ablation import run as runner
    from hsi_se.cli.ablate_live import watch
    from hsi_se.cli.tables import print_answer
    from hsi_se.system.session import Session

    with watch(ablation) as watcher:
        folder, report = runner.run_ablation(
            ablation, out=out, session=Session(data, device), workers=workers, scheduler=scheduler, watcher=watcher
        )
    print_answer(report)
    print(f"report: {folder.report_text}")
    if ablation.is_of_seeds and ablation.has_folds and not report.failed:
        print(f"next: {quote('hsi-se', 'eval', str(folder))}")
    for failure in report.failed:
        print(f"hsi-se: {failure}: failed: {failure.error}", file=sys.stderr)
    if report.failed:
        raise typer.Exit(2 if all(failure.is_users for failure in report.failed) else 1)
