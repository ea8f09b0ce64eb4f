"""Training as it happens, a live table or lines off a terminal: the runs of an ablation, or what runs have written."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from hsi_se.ablation.file import Ablation, PlannedRun
from hsi_se.ablation.record import AblationFolder
from hsi_se.cli.terminal import describe_epoch, print_prose
from hsi_se.errors import RunError
from hsi_se.progress import EpochRecord, clock
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import RunStart
from hsi_se.system.locks import is_held

if TYPE_CHECKING:
    from hsi_se.ablation.run import State, Watcher  # which would import torch

POLL_S = 0.5
_PATIENCE_S = 20.0  # how long no process may be at work between two runs of a folder
_MOST_ROWS = 12
_SIGNS = {"": "·", "running": "▶", "finished": "■", "failed": "✗", "elsewhere": "□"}


@dataclass(frozen=True, eq=False)
class Progress:
    """The state of a run: how it began, its epochs so far, and whether it is finished."""

    folder: RunFolder
    start: RunStart
    epochs: tuple[EpochRecord, ...]
    is_finished: bool
    quiet_s: float  # since its last line was written

    @property
    def left_s(self) -> float:
        """Time for the remaining epochs at the mean pace, once the first epoch has ended."""
        pace = self.epochs[-1].elapsed_s / self.epochs[-1].epoch
        return max(0.0, pace * (self.start.epochs - self.epochs[-1].epoch) - min(self.quiet_s, pace))

    def describe(self) -> str:
        if not self.epochs:
            return "finished" if self.is_finished else "started"
        end = "finished" if self.is_finished else f"{clock(self.left_s)} left"
        return f"{describe_epoch(self.epochs[-1], of=f' of {self.start.epochs}')}  {end}"


def list_progress(path: Path) -> list[Progress]:
    """Returns the runs in a folder, or the run that it is; the most recently written one comes last."""
    runs = []
    for folder in map(RunFolder, _find_folders(path, holding=RunFolder(path).progress.name)):
        if any(part.startswith(".") for part in folder.path.relative_to(path).parts):
            continue
        try:
            written = folder.progress.stat().st_mtime
            is_finished = folder.record.is_file()
            start, epochs = folder.read_progress()
        except (FileNotFoundError, RunError):
            if folder.progress.is_file():
                raise
            continue  # a run that fails deletes its folder
        runs.append((written, Progress(folder, start, epochs, is_finished, max(0.0, time.time() - written))))
    return [run for _, run in sorted(runs, key=lambda each: each[0])]


def _find_folders(path: Path, *, holding: str) -> list[Path]:
    """Returns the folders at and below `path` that contain a file of this name; one may vanish meanwhile."""
    return sorted(Path(folder) for folder, _, files in os.walk(path) if holding in files)


def follow(path: str | Path, *, console: Console, sleep: Callable[[float], None] = time.sleep) -> None:
    """Shows the training in the folder of runs or of an ablation until no process works on it any more.

    RunError if nothing trains or has trained there.
    """
    path = Path(path)
    problem = ""
    if not path.is_dir():
        problem = "is a file" if path.is_file() else "no such folder"
    elif not list_progress(path) and not AblationFolder(path).plan.is_file():
        problem = f"nothing trains in this folder ({RunFolder(path).progress.name} is missing)"
    if problem:
        raise RunError(f"{path}: {problem}; give the --out folder of `hsi-se train` or `ablate`")
    states = _watch(path, sleep)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for runs in states:
                live.update(draw(runs, path=path), refresh=True)
    else:
        for line in _describe_changes(path, states):
            console.print(line, highlight=False, soft_wrap=True)
    for line in _describe_end(path):
        print_prose(console, line)


def _watch(path: Path, sleep: Callable[[float], None]) -> Iterator[list[Progress]]:
    """Yields the runs again and again, the last time when all are finished or no process is at work."""
    idle_s = 0.0
    while True:
        is_at_work = any(is_held(folder) for folder in _find_folders(path, holding=".lock"))
        runs = list_progress(path)  # read after the locks: a run ends before its lock is released
        yield runs
        if not is_at_work and (idle_s >= _PATIENCE_S or not _is_more_to_come(path)):
            return
        sleep(POLL_S)
        idle_s = 0.0 if is_at_work else idle_s + POLL_S


def _is_more_to_come(path: Path) -> bool:
    """Whether another run may begin there: in a folder of runs, or in an ablation that is missing some."""
    ablation = AblationFolder(path)
    if ablation.plan.is_file():
        return not ablation.report.is_file() or ablation.read_report().num_missing > 0
    return path.is_dir() and not RunFolder(path).progress.is_file()


def _describe_end(path: Path) -> Iterator[str]:
    """Yields why the watching ends although not everything is finished, and what to do."""
    runs, ablation = list_progress(path), AblationFolder(path)
    if not runs and not ablation.plan.is_file():
        yield f"{path}: the run failed or was stopped, and its folder was deleted"
    elif RunFolder(path).is_unfinished:
        yield f"{path}: no process is training here any more; {RunFolder(path).how_to_resume}"
    elif not all(run.is_finished for run in runs) or (ablation.plan.is_file() and _is_more_to_come(path)):
        yield f"{path}: no process is training here any more; rerun the command that started it to resume"


def _describe_changes(path: Path, states: Iterator[list[Progress]]) -> Iterator[str]:
    """Yields one line for each epoch of each run, and one for its end."""
    printed: dict[str, tuple[int, bool]] = {}
    for runs in states:
        for run in runs:
            now = (len(run.epochs), run.is_finished)
            if printed.get(str(run.folder)) != now:
                printed[str(run.folder)] = now
                yield f"{_name(run, path)}  {run.describe()}"


def draw(runs: Sequence[Progress], *, path: Path) -> RenderableType:
    """Returns a table with one line for each of the last runs, below what they are."""
    if not runs:
        return ""
    last = runs[-1]
    title = f"{last.start.name} on {last.start.scene}, trained with seed {last.start.seed}"
    if len(runs) > 1:
        title = f"{path}: {sum(run.is_finished for run in runs)} of {len(runs)} runs finished; now {title}"
    table = Table.grid(padding=(0, 2))
    for run in runs[-_MOST_ROWS:]:
        table.add_row(_name(run, path), run.describe())
    parts: list[RenderableType] = [Text(title, style="bold"), table]
    if last.quiet_s > 60 and not last.is_finished:
        parts.append(Text(f"nothing written for {clock(last.quiet_s)}", style="yellow"))
    return Group(*parts)


def _name(run: Progress, path: Path) -> str:
    return "/".join(run.folder.path.relative_to(path).parts) or run.start.name


@contextmanager
def watch_ablation(ablation: Ablation) -> Iterator["Watcher"]:
    """Yields a watcher that shows the state of every run: a live table on a terminal, lines elsewhere."""
    console = Console(stderr=True, markup=False, emoji=False)
    if not console.is_terminal:
        yield Lines(ablation)
        return
    board = Board(ablation)
    with Live(get_renderable=board.render, console=console, refresh_per_second=2) as live:
        board.live = live
        yield board
        live.refresh()


class Lines:
    """One line for every run that has finished or failed."""

    def __init__(self, ablation: Ablation) -> None:
        self.ablation = ablation
        self.states: dict[PlannedRun, State] = {}
        self.accuracies: dict[PlannedRun, float] = {}  # without those of single folds
        self.num_ended = 0  # of those that this command has worked on
        self.start = time.monotonic()

    def note(self, text: str) -> None:
        print(f"note: {text}", file=sys.stderr, flush=True)

    def change(self, run: PlannedRun, state: "State", *, accuracy: float | None = None) -> None:
        before = self.states.get(run)
        if before != state:
            self.states[run] = state
            self.num_ended += before == "running"
            if accuracy is not None and run.whole is None:
                self.accuracies[run] = accuracy
            self.show(run, accuracy)

    @property
    def progress(self) -> str:
        """`3/10`: how many runs, or folds, are finished."""
        parts = self.ablation.parts
        return f"{sum(self.states.get(run) == 'finished' for run in parts)}/{len(parts)}"

    def show(self, run: PlannedRun, accuracy: float | None) -> None:
        state = self.states[run]
        if state == "running":
            return
        text = f"{self.progress}  {run}{', all folds' if run.parts != (run,) else ''}  {state}"
        if accuracy is not None:
            text += f"  accuracy {100 * accuracy:.2f} %"
        if run in self.accuracies:
            text += f"  ({self.describe(run.scene, run.variant)})"
        print(f"{text}  {self.describe_time()}".rstrip(), file=sys.stderr, flush=True)

    def describe(self, scene: str, variant: str) -> str:
        """Returns `94.96 ± 0.31, n=3`: mean and standard deviation over a variant's runs so far."""
        found, key = self.accuracies.items(), (scene, variant)
        values = [100 * accuracy for run, accuracy in found if (run.scene, run.variant) == key]
        if not values:
            return ""
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.2f}{spread}, n={len(values)}"

    def describe_time(self) -> str:
        """Returns the time left at the pace since this command started, or an empty string."""
        num_left = sum(self.states.get(run) not in ("finished", "failed") for run in self.ablation.parts)
        if not self.num_ended or not num_left:
            return ""
        return f"{clock(num_left * (time.monotonic() - self.start) / self.num_ended)} left"


class Board(Lines):
    """One row per variant: a sign for each seed's run, and the mean so far."""

    live: "Live"

    def note(self, text: str) -> None:
        self.live.console.print(f"note: {text}", highlight=False, markup=False)

    def show(self, run: PlannedRun, accuracy: float | None) -> None:
        pass  # the table is redrawn twice a second

    def render(self) -> Table:
        signs = "  ".join(f"{sign} {state or 'waiting'}" for state, sign in _SIGNS.items())
        elapsed = clock(time.monotonic() - self.start)
        progress = f"{self.progress.replace('/', ' of ')} {'folds' if self.ablation.has_folds else 'runs'}"
        headings = ("scene", "variant", "seeds", Column("OA %, mean ± std", justify="right"))
        first = 1 if self.ablation.scenes == ("",) else 0  # one scene has no name, and no column
        table = Table(
            *headings[first:],
            title=f"{self.ablation.name}: {progress}, {elapsed}, {self.describe_time() or 'time left unknown'}",
            caption=signs,
            title_justify="left",
            caption_justify="left",
        )
        groups: dict[tuple[str, str], str] = {}
        for run in self.ablation.parts:
            key = run.scene, run.variant
            groups[key] = groups.get(key, "") + _SIGNS[self.states.get(run, "")]
        for (scene, variant), states in groups.items():
            table.add_row(*(scene, variant, states, self.describe(scene, variant))[first:])
        return table
