"""The state of an ablation while it runs: a live table on a terminal, lines elsewhere."""

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from hsi_se.ablation.file import Ablation, PlannedRun
from hsi_se.progress import clock

if TYPE_CHECKING:
    from hsi_se.ablation.run import State, Watcher  # which would import torch

_SIGNS = {"": "·", "running": "▶", "finished": "■", "failed": "✗", "elsewhere": "□"}


@contextmanager
def watch(ablation: Ablation) -> Iterator["Watcher"]:
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
            text += f"  OA {100 * accuracy:.2f} %"
        if run in self.accuracies:
            text += f"  ({self.describe(run.scene, run.variant)})"
        print(f"{text}  {self.describe_time()}".rstrip(), file=sys.stderr, flush=True)

    def describe(self, scene: str, variant: str) -> str:
        """Returns `94.96 ± 0.31, n=3`: mean and standard deviation over a variant's runs so far."""
        values = [
            100 * accuracy for run, accuracy in self.accuracies.items() if (run.scene, run.variant) == (scene, variant)
        ]
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
