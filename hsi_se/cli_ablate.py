"""`hsi-se ablate`, with a table that lives while the runs are made, and `explain`: what attention does."""

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_se.errors import ConfigError

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from hsi_se.ablation import State, Watcher
    from hsi_se.ablation_file import Ablation, PlannedRun
    from hsi_se.ablation_plan import PlannedVariant
    from hsi_se.ablation_record import AblationReport

_SIGNS = {"": "·", "running": "▶", "finished": "■", "failed": "✗", "elsewhere": "□"}


def ablate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An ablation, such as configs/ablations/placement.yaml.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=c", help="Change a setting of the base, for all variants."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder to write. Unless given: runs/ablation-NAME-DIGEST."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Start a Dask cluster of N processes on this machine.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:8786", help="An existing Dask cluster; its workers see the scene."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs with their size and time; run nothing.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Where scenes are looked for before datasets/."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train every variant of FILE with every seed, and say which differ. Interrupted, it goes on later."""
    from hsi_se.ablation_file import load_ablation

    ablation = load_ablation(file, overrides or [])

    from hsi_se import ablation as runner

    if dry_run:
        for option, value in (("--workers", workers), ("--scheduler", scheduler)):
            if value is not None:
                raise ConfigError(f"{option}: has no effect with --dry-run; leave one of them out")
        from hsi_se.ablation_plan import plan_ablation

        print_plan(plan_ablation(ablation, out=out, data=data))
        print(f"folder: {runner.find_folder(ablation, out)}")
        return
    with watch(ablation) as watcher:
        folder, report = runner.run_ablation(
            ablation,
            out=out,
            data=data,
            device=device,
            workers=workers,
            scheduler=scheduler,
            watcher=watcher,
        )
    print_answer(report)
    print(f"report: {folder.report_text}")
    for failure in report.failed:
        where = ", ".join(filter(None, (failure.scene, failure.variant, f"seed {failure.seed}")))
        print(f"hsi-se: {where}: failed: {failure.error}", file=sys.stderr)
    if report.failed:
        raise typer.Exit(2 if all(failure.is_users for failure in report.failed) else 1)


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `hsi-se train` prints it.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Where scenes are looked for before datasets/."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Say what each gate of RUN does to each class of its test pixels; draw it."""
    from hsi_se.records import RunFolder

    folder = RunFolder.open(run)

    from rich.table import Table

    from hsi_se import explain as explaining
    from hsi_se.terminal import make_console, show_progress

    with show_progress() as observer:
        explanation = explaining.explain(folder, data=data, device=device, observer=observer)
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


# ------------------------------------------------------------------------------------- while it works


@contextmanager
def watch(ablation: "Ablation") -> Iterator["Watcher"]:
    """Yields who shows the state of every run: a live table on a terminal, lines off it."""
    from rich.console import Console

    console = Console(stderr=True, markup=False, emoji=False)
    if not console.is_terminal:
        yield Lines(ablation)
        return
    from rich.live import Live

    board = Board(ablation)
    with Live(get_renderable=board.render, console=console, refresh_per_second=2) as live:
        board.live = live
        yield board
        live.refresh()


class Lines:
    """One line for every run that has finished or failed."""

    def __init__(self, ablation: "Ablation") -> None:
        self.ablation = ablation
        self.states: dict[PlannedRun, State] = {}
        self.accuracies: dict[PlannedRun, float] = {}
        self.started: dict[PlannedRun, float] = {}
        self.spent: list[float] = []
        self.start = time.monotonic()

    def note(self, text: str) -> None:
        print(f"note: {text}", file=sys.stderr, flush=True)

    def change(self, run: "PlannedRun", state: "State", *, accuracy: float | None = None) -> None:
        if self.states.get(run) != state:
            self.update(run, state, accuracy)
            self.show(run)

    def update(self, run: "PlannedRun", state: "State", accuracy: float | None) -> None:
        self.states[run] = state
        if state == "running":
            self.started[run] = time.monotonic()
        elif run in self.started:
            self.spent.append(time.monotonic() - self.started.pop(run))
        if accuracy is not None:
            self.accuracies[run] = accuracy

    def show(self, run: "PlannedRun") -> None:
        state = self.states[run]
        if state == "running":
            return
        text = f"{len(self.accuracies)}/{len(self.ablation.runs)}  {run}  {state}"
        if run in self.accuracies:
            text += f"  OA {100 * self.accuracies[run]:.2f} %  ({self.describe(run.scene, run.variant)})"
        print(f"{text}  {self.describe_time()}".rstrip(), file=sys.stderr, flush=True)

    def describe(self, scene: str, variant: str) -> str:
        """`94.96 ± 0.31, n=3` of a variant's runs so far."""
        values = [
            100 * accuracy
            for run, accuracy in self.accuracies.items()
            if (run.scene, run.variant) == (scene, variant)
        ]
        if not values:
            return ""
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.2f}{spread}, n={len(values)}"

    def describe_time(self) -> str:
        """How long the rest will take at the pace of this start."""
        num_left = sum(self.states.get(run) not in ("finished", "failed") for run in self.ablation.runs)
        if not self.spent or not num_left:
            return ""
        seconds = num_left * (time.monotonic() - self.start) / len(self.spent)
        from hsi_se.report.tables import clock

        return f"{clock(seconds)} left"


class Board(Lines):
    """A row for every variant: a sign for each seed's run, and the mean so far."""

    live: "Live"

    def note(self, text: str) -> None:
        self.live.console.print(f"note: {text}", highlight=False, markup=False)

    def show(self, run: "PlannedRun") -> None:
        pass  # the table is drawn anew twice a second

    def render(self) -> "Table":
        from rich.table import Table

        from hsi_se.report.tables import clock

        signs = "  ".join(f"{sign} {state or 'waiting'}" for state, sign in _SIGNS.items())
        elapsed = clock(time.monotonic() - self.start)
        table = Table(
            title=f"{self.ablation.name}: {len(self.accuracies)} of {len(self.ablation.runs)} runs, "
            f"{elapsed}, {self.describe_time() or 'time left unknown'}",
            caption=signs,
            title_justify="left",
            caption_justify="left",
        )
        has_scenes = self.ablation.scenes != ("",)
        for heading in (*(("scene",) if has_scenes else ()), "variant", "seeds"):
            table.add_column(heading)
        table.add_column("OA %, mean ± std", justify="right")
        groups: dict[tuple[str, str], str] = {}
        for run in self.ablation.runs:
            key = run.scene, run.variant
            groups[key] = groups.get(key, "") + _SIGNS[self.states.get(run, "")]
        for (scene, variant), states in groups.items():
            table.add_row(*((scene,) if has_scenes else ()), variant, states, self.describe(scene, variant))
        return table


# ------------------------------------------------------------------------------------- results


def print_plan(rows: "list[PlannedVariant]") -> None:
    import json

    from rich.table import Table

    from hsi_se.report.tables import clock
    from hsi_se.terminal import make_console

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
    for heading in ("parameters", "MACs a patch", "training of one"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("of what is left", describe_time(total), justify="right", no_wrap=True)
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
    print("Times are training alone, one run after another, from one timed step each on this machine.")


def _describe_seeds(seeds: tuple[int, ...]) -> str:
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def print_answer(report: "AblationReport") -> None:
    from rich.table import Table

    from hsi_se.report.ablation_tables import HEADINGS, list_rows
    from hsi_se.terminal import make_console

    for scene in report.scenes:
        table = Table(title=f"{report.name} on {scene.name}", title_justify="left")
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if heading == HEADINGS[0] else "right")
        for row in list_rows(scene):
            table.add_row(*row)
        make_console(width=150).print(table)
        for variant in scene.variants:
            if variant.comparison is not None:
                print(f"{variant.name} against {report.baseline}: {variant.comparison.sentence}")
        for note in scene.notes:
            print(f"note: {note}")
    for caveat in report.caveats:
        print(f"note: {caveat}")
    if report.no_friedman:
        print(f"note: no critical-difference diagram: {report.no_friedman}.")
    if report.num_missing:
        print(f"note: {report.num_missing} runs are not there yet")
