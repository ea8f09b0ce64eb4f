"""Output of commands: a progress bar on a terminal, plain lines elsewhere; prose and tables at the end.

Progress goes to standard error, so that standard output contains results only.
"""

import gc
import html
import importlib
import itertools
import sys
import textwrap
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hsi_se.progress import EpochRecord, Observer, Several, Silent, clock
from hsi_se.scene.guards import to_printable
from hsi_se.system.processes import is_first
from hsi_se.system.session import Session


@contextmanager
def start_session(
    *, data: Path | None = None, device: str = "auto", log: Sequence[str] | None = None
) -> Iterator[Session]:
    """Yields a session whose observer shows progress on standard error until the block ends; `log` is of `--log`."""
    loggers = open_loggers(log)
    gc.freeze()  # what a command has imported stays until its end: no collection need look at it
    try:
        with show_progress() as observer:
            yield Session(data, device, Several(observer, *loggers) if loggers else observer)
    finally:
        gc.unfreeze()


def open_loggers(log: Sequence[str] | None) -> list[Observer]:
    """Returns the observers that `--log` names; of several processes, the first one has them."""
    if not log or not is_first():
        return []
    from hsi_se.workflows.loggers import open_logger  # imports the tools

    return [open_logger(text) for text in log]


@contextmanager
def show_progress(elsewhere: Callable[[], Observer] | None = None) -> Iterator[Observer]:
    """Yields an observer with a bar on a terminal or in a notebook, and one made by `elsewhere`, or lines, off them."""
    if not is_first():  # of several processes, one prints
        yield Silent()
        return
    console = Console(stderr=True, markup=False, emoji=False)
    if console.is_jupyter:
        yield NotebookBar()
        return
    if not console.is_terminal:
        yield (elsewhere or PlainLines)()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("left  {task.fields[state]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield ProgressBar(progress)


class ProgressBar(Silent):
    """One bar per task, with its rate and the last epoch's loss and validation accuracy."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._unit = ""
        self._task = progress.add_task("", total=None, visible=False, rate="", state="")

    def start(self, task: str, *, total: int, unit: str) -> None:
        self._unit = unit
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(task, total=total, rate="", state="")

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)
        speed = self._progress.tasks[-1].speed
        if speed is not None:
            self._progress.update(self._task, rate=f"{speed:,.0f} {self._unit}/s")

    def epoch(self, record: EpochRecord) -> None:
        self._progress.update(self._task, state=describe_epoch(record))

    def note(self, text: str) -> None:
        print_prose(self._progress.console, f"note: {text}")


class PlainLines(Silent):
    """One line per epoch, and one every ten seconds during other work."""

    every_s = 10.0

    def __init__(self) -> None:
        self._task, self._unit, self._total, self._done = "", "", 0, 0
        self._start = self._last = 0.0

    def start(self, task: str, *, total: int, unit: str) -> None:
        self._task, self._unit, self._total, self._done = task, unit, total, 0
        self._start = self._last = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._last >= self.every_s:
            self._print("")

    def epoch(self, record: EpochRecord) -> None:
        self._print(describe_epoch(record))

    def note(self, text: str) -> None:
        print(f"note: {text}", file=sys.stderr, flush=True)

    def _print(self, state: str) -> None:
        print(self._describe(state), file=sys.stderr, flush=True)

    def _describe(self, state: str) -> str:
        self._last = time.monotonic()
        rate = self._done / max(self._last - self._start, 1e-9)
        share = self._done / self._total if self._total else 1.0  # a run may be resumed after its last step
        left = clock((self._total - self._done) / max(rate, 1e-9))
        return f"{self._task}  {100 * share:3.0f} %  {rate:,.0f} {self._unit}/s  {left} left  {state}".rstrip()


class NotebookBar(PlainLines):
    """A bar for each task in the output of a notebook's cell, and notes below it."""

    every_s = 0.5

    def __init__(self) -> None:
        super().__init__()
        self._screen: Any = importlib.import_module("IPython.display")

    def start(self, task: str, *, total: int, unit: str) -> None:
        super().start(task, total=total, unit=unit)
        self._state, self._bar = "", self._screen.display(self._screen.HTML(""), display_id=True)

    def advance(self, count: int) -> None:
        super().advance(count)
        if self._done >= self._total:
            self._print(self._state)

    def note(self, text: str) -> None:
        self._screen.display(self._screen.HTML(f"<div>note: {html.escape(text)}</div>"))

    def _print(self, state: str) -> None:
        self._state = state or self._state
        text = html.escape(self._describe(self._state))
        self._bar.update(self._screen.HTML(f'<progress value="{self._done}" max="{self._total}"></progress> {text}'))


def describe_epoch(record: EpochRecord, *, of: str = "") -> str:
    """Returns `epoch 3 of 5  loss 0.021  validation accuracy 96.1 %`; `of` is ` of 5`, where that is to be said."""
    text = f"epoch {record.epoch}{of}  loss {record.loss:.3f}"
    if record.validation_accuracy is not None:
        text += f"  validation accuracy {100 * record.validation_accuracy:.1f} %"
    return text


def say(text: str, *, style: str = "", to_stderr: bool = False) -> None:
    """Prints prose. On a terminal it breaks between words; redirected, each paragraph is one line."""
    print_prose(Console(stderr=to_stderr, markup=False, emoji=False), text, style=style)


def print_prose(console: Console, text: str, *, style: str = "") -> None:
    """As `say`, to a console. A word that is longer than a line, such as a path, stays whole."""
    text = to_printable(text)
    if console.is_terminal:
        text = textwrap.fill(text, console.width, break_long_words=False, break_on_hyphens=False)
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        say(f"note: {note}")


def print_table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    footer: Sequence[str] = (),
    left: Container[int] = (0,),
    whole: Container[int] = (),
    width: int = 110,
) -> None:
    """Prints a table of right-aligned columns, but for those at the positions `left`; see `make_console`.

    Text in columns at the positions `whole` is not broken.
    """
    table = Table(title=title, title_justify="left", show_footer=bool(footer))
    for position, (heading, foot) in enumerate(itertools.zip_longest(headings, footer, fillvalue="")):
        justify: JustifyMethod = "left" if position in left else "right"
        table.add_column(heading, foot, justify=justify, overflow="fold", no_wrap=position in whole)
    for row in rows:
        table.add_row(*map(to_printable, row))
    make_console(width=width).print(table)


def make_console(*, width: int = 110) -> Console:
    """Returns a console sized to the terminal, or to `width` when output is redirected.

    Markup is off, so that class names such as [x] and :x: print as they are.
    """
    return Console(width=None if sys.stdout.isatty() else width, markup=False, emoji=False)
