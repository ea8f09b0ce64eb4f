"""`hsi-se ablate`: its options, the plan of a dry run, and the results."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_se.cli.ablate_live import watch
from hsi_se.cli.options import DataFolder, Device, Overrides, Scheduler, Workers, out_folder
from hsi_se.cli.usage import quote
from hsi_se.errors import ConfigError

if TYPE_CHECKING:
    from hsi_se.ablation.file import Ablation
    from hsi_se.ablation.plan import PlannedVariant
    from hsi_se.ablation.record import AblationReport


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


# ------------------------------------------------------------------------------------- results


def print_plan(rows: "list[PlannedVariant]") -> None:
    import json

    from rich.table import Table

    from hsi_se.cli.terminal import make_console, say
    from hsi_se.progress import clock

    def describe_time(seconds: float | None) -> str:
        return "–" if seconds is None else clock(seconds)

    has_scenes = any(row.scene for row in rows)
    num_runs = sum(len(row.seeds) for row in rows)
    left = [(len(row.seeds) - row.num_finished, row.training_s) for row in rows]
    total = sum(count * (seconds or 0) for count, seconds in left)
    table = Table(show_footer=True)
    if has_scenes:
        table.add_column("scene")
    table.add_column("variant", f"{num_runs} runs", no_wrap=True)
    table.add_column("changes", overflow="fold")
    table.add_column("seeds")
    table.add_column("finished", str(sum(row.num_finished for row in rows)), justify="right")
    for heading in ("parameters", "MACs per patch", "time per run"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("remaining", describe_time(total), justify="right", no_wrap=True)
    for row, (count, seconds) in zip(rows, left, strict=True):
        changes = ", ".join(f"{key}={json.dumps(value)}" for key, value in row.settings.items())
        table.add_row(
            *((row.scene,) if has_scenes else ()),
            row.name,
            changes.replace('"', ""),
            _describe_seeds(row.seeds),
            str(row.num_finished),
            *("–" if count is None else f"{count:,}" for count in (row.num_parameters, row.macs)),
            describe_time(seconds),
            describe_time(None if seconds is None else count * seconds),
        )
    make_console(width=150).print(table)
    say("Times are for training only, one run after another, estimated from one training step per variant.")


def _describe_seeds(seeds: tuple[int, ...]) -> str:
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def print_answer(report: "AblationReport") -> None:
    from hsi_se.ablation.tables import HEADINGS, Table, list_rows, list_tables
    from hsi_se.cli.terminal import print_table, say, say_notes

    of_seeds = f", n = {len(report.seeds)} seeds" if report.is_of_seeds else ""
    for scene in report.scenes:
        title = f"{report.name} on {scene.name}{of_seeds}: mean ± standard deviation"
        variants = Table(title, HEADINGS, list_rows(scene))
        for table in (variants, *list_tables(scene, with_interval=report.is_of_seeds)):
            left = tuple(range(table.num_texts))
            print_table(table.title, table.headings, table.rows, left=left, width=150)
        for variant in scene.variants:
            if variant.comparison is not None:
                say(f"{variant.name} against {report.baseline}: {variant.comparison.sentence}", style="bold")
        say_notes(scene.notes)
    say_notes(report.caveats)
    if report.no_friedman:
        say(f"note: no critical-difference diagram: {report.no_friedman}.")
    if report.num_missing:
        say(f"note: {report.missing}")
