"""Training as it goes, read from the progress that runs write: a live picture, or lines off a terminal."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hsi_se.ablation.record import AblationFolder
from hsi_se.errors import RunError
from hsi_se.progress import EpochRecord
from hsi_se.report.tables import clock
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import RunStart
from hsi_se.system.locks import is_held

POLL_S = 0.5
_PATIENCE_S = 20.0  # between two runs of a folder, when nobody is at work
_BLOCKS = " ▁▂▃▄▅▆▇█"
_MOST_CLASSES = 20


@dataclass(frozen=True, eq=False)
class Progress:
    """What is known of a run: how it began, its epochs so far, and whether it is finished."""

    folder: RunFolder
    start: RunStart
    epochs: tuple[EpochRecord, ...]
    is_finished: bool
    quiet_s: float  # since its last line

    @property
    def left_s(self) -> float | None:
        """The time that the epochs to come will take at the mean pace; None before the first."""
        if not self.epochs or self.epochs[-1].elapsed_s is None:
            return None
        pace = self.epochs[-1].elapsed_s / self.epochs[-1].epoch
        return max(0.0, pace * (self.start.epochs - self.epochs[-1].epoch) - min(self.quiet_s, pace))

    def describe(self) -> str:
        """The run in one line."""
        if not self.epochs:
            return "finished" if self.is_finished else "begun"
        last = self.epochs[-1]
        text = f"epoch {last.epoch} of {self.start.epochs}  loss {last.loss:.3f}"
        if last.validation_accuracy is not None:
            text += f"  validation OA {100 * last.validation_accuracy:.1f} %"
        if self.is_finished:
            return f"{text}  finished"
        return text if self.left_s is None else f"{text}  {clock(self.left_s)} left"


def list_progress(path: Path) -> list[Progress]:
    """Returns the runs in a folder, or the run that it is, the one that was last written to at the end."""
    found = [RunFolder(folder) for folder in _find_folders(path, holding=RunFolder(path).progress.name)]
    runs = []
    for folder in (each for each in found if not any(part.startswith(".") for part in _below(each, path))):
        try:
            written = folder.progress.stat().st_mtime
            is_finished = folder.record.is_file()
            start, epochs = folder.read_progress()
        except (FileNotFoundError, RunError):
            if folder.progress.is_file():
                raise
            continue  # a run that failed takes its folder with it
        runs.append((written, Progress(folder, start, epochs, is_finished, max(0.0, time.time() - written))))
    return [run for _, run in sorted(runs, key=lambda each: each[0])]


def _find_folders(path: Path, *, holding: str) -> list[Path]:
    """The folders in and below one that hold a file of a name; one may vanish meanwhile."""
    return sorted(Path(folder) for folder, _, files in os.walk(path) if holding in files)


def follow(path: str | Path, *, console: Console, sleep: Callable[[float], None] = time.sleep) -> None:
    """Shows the training in a folder until it is finished, or nobody is at it.

    Args:
        path: of a run, of an ablation, or of a folder of runs.
        console: where to.
        sleep: waits for some seconds.

    Raises:
        RunError: nothing trains there, and nothing has.
    """
    path = Path(path)
    if not path.is_dir():
        raise RunError(f"{path}: no such folder; `hsi-se train` and `ablate` work in one, --run DIR names it")
    if not list_progress(path) and not AblationFolder(path).plan.is_file():
        raise RunError(
            f"{path}: nothing trains in here ({RunFolder(path).progress.name} is missing); "
            "name the folder that `hsi-se train` or `ablate` works in"
        )
    states = _watch(path, sleep)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for runs in states:
                live.update(draw(runs, path=path, width=console.width), refresh=True)
    else:
        for line in _tell(path, states):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in _say_what_is_left(path):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _watch(path: Path, sleep: Callable[[float], None]) -> Iterator[list[Progress]]:
    """Yields the runs again and again, a last time when all is done or nobody is at work."""
    idle_s = 0.0
    while True:
        is_at_work = any(is_held(folder) for folder in _find_folders(path, holding=".lock"))
        runs = list_progress(path)  # after the locks, as a run's end is written before it is let go
        yield runs
        if not is_at_work and (idle_s >= _PATIENCE_S or not _is_more_to_come(path)):
            return
        sleep(POLL_S)
        idle_s = 0.0 if is_at_work else idle_s + POLL_S


def _is_more_to_come(path: Path) -> bool:
    """Whether somebody may yet begin a run in there: in an ablation that lacks some, or a folder of runs."""
    ablation = AblationFolder(path)
    if ablation.plan.is_file():
        return not ablation.report.is_file() or ablation.read_report().num_missing > 0
    return path.is_dir() and not RunFolder(path).progress.is_file()


def _say_what_is_left(path: Path) -> Iterator[str]:
    runs, ablation = list_progress(path), AblationFolder(path)
    if not runs and not ablation.plan.is_file():
        yield f"{path}: the run has failed or was stopped: its folder is gone"
    elif RunFolder(path).is_unfinished:
        yield f"{path}: nobody trains in here any more; {RunFolder(path).how_to_resume}"
    elif not all(run.is_finished for run in runs) or (ablation.plan.is_file() and _is_more_to_come(path)):
        yield f"{path}: nobody trains in here any more; the command that began it goes on with what is left"


def _tell(path: Path, states: Iterator[list[Progress]]) -> Iterator[str]:
    """One line for each epoch of each run, and for its end."""
    told: dict[str, tuple[int, bool]] = {}
    for runs in states:
        for run in runs:
            now = (len(run.epochs), run.is_finished)
            if told.get(str(run.folder)) != now:
                told[str(run.folder)] = now
                yield f"{_name(run, path)}  {run.describe()}"


# ---------------------------------------------------------------------------------------------- drawing


def draw(runs: Sequence[Progress], *, path: Path, width: int) -> RenderableType:
    """Returns the picture of the last run, below a line for each if there are several."""
    if not runs:
        return Text("")
    parts: list[RenderableType] = []
    if len(runs) > 1:
        num_finished = sum(run.is_finished for run in runs)
        parts.append(Text(f"{path}: {num_finished} runs finished, {len(runs) - num_finished} not\n"))
        table = Table.grid(padding=(0, 2))
        for run in runs[-8:-1]:
            table.add_row(_name(run, path), run.describe())
        parts.append(table)
    run = runs[-1]
    parts.append(Text(f"\n{run.start.name} on {run.start.scene}, seed {run.start.seed}", style="bold"))
    done = (
        run.epochs[-1].epoch / run.start.epochs if run.epochs and run.start.epochs else float(run.is_finished)
    )
    parts.append(Text(f"{_bar(done, 30)}  {run.describe()}"))
    if run.quiet_s > 60 and not run.is_finished:
        parts.append(Text(f"nothing written for {clock(run.quiet_s)}", style="yellow"))
    if run.epochs:
        parts.append(_draw_curves(run, width=width))
        parts.append(_draw_classes(run))
    return Group(*parts)


def draw_curve(values: Sequence[float], *, width: int, height: int) -> list[str]:
    """Returns a curve as `height` lines of block characters, the lowest value a sliver, the highest full.

    Of more values than columns, each column shows the last of its share; of fewer, each value is as many
    columns wide as fit.
    """
    if len(values) > width:
        columns = [values[(place + 1) * len(values) // width - 1] for place in range(width)]
    else:
        columns = [value for value in values for _ in range(max(1, min(4, width // len(values))))]
    low, high = min(columns), max(columns)
    steps = height * (len(_BLOCKS) - 1)
    spread = high - low
    filled = [1 + round((steps - 1) * ((value - low) / spread if spread > 0 else 0.5)) for value in columns]
    full = len(_BLOCKS) - 1
    return [
        "".join(_BLOCKS[min(max(level - row * full, 0), full)] for level in filled)
        for row in reversed(range(height))
    ]


def _draw_curves(run: Progress, *, width: int) -> Table:
    table = Table.grid(padding=(0, 3))
    accuracies = [each.validation_accuracy for each in run.epochs if each.validation_accuracy is not None]
    curves = [("training loss", [each.loss for each in run.epochs], "{:.3f}", 1.0)]
    if accuracies:
        curves.append(("validation OA", accuracies, "{:.1f} %", 100.0))
    share = max(10, min(60, (width - 4) // len(curves) - 10))
    cells = []
    for name, values, form, factor in curves:
        ends = [form.format(factor * value) for value in (max(values), min(values))]
        lines = draw_curve(values, width=share, height=6)
        sides = [ends[0], *[""] * (len(lines) - 2), ends[1]]
        text = "\n".join(f"{side:>7} {line}" for side, line in zip(sides, lines, strict=True))
        cells.append(Text(f"\n{name}\n{text}"))
    table.add_row(*cells)
    return table


def _draw_classes(run: Progress) -> RenderableType:
    shares = run.epochs[-1].validation_per_class
    if shares is None or all(share is None for share in shares):
        return Text("")
    table = Table.grid(padding=(0, 1))
    rows = list(zip(run.start.class_ids, run.start.class_names, shares, strict=True))
    for label, name, share in rows[:_MOST_CLASSES]:
        accuracy = (
            ("", "  no validation pixel") if share is None else (_bar(share, 20), f"{100 * share:5.1f} %")
        )
        table.add_row(f"{label:>3}", Text(name, overflow="ellipsis"), *accuracy)
    if len(rows) > _MOST_CLASSES:
        table.add_row("", f"and {len(rows) - _MOST_CLASSES} more", "", "")
    return Group(Text("\nvalidation accuracy of each class"), table)


def _bar(share: float, width: int) -> str:
    filled = round(width * min(max(share, 0.0), 1.0))
    return "█" * filled + "░" * (width - filled)


def _below(folder: RunFolder, path: Path) -> tuple[str, ...]:
    return folder.path.relative_to(path).parts


def _name(run: Progress, path: Path) -> str:
    return "/".join(_below(run.folder, path)) or run.start.name
