"""Trainings that are ended in the middle and resumed: commands, observers and comparisons for several modules."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hsi_se.progress import Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.system.processes import Stop
from hsi_se.training import checkpoint
from hsi_se.training.checkpoint import Checkpoints, list_checkpoints, read_checkpoint
from hsi_se.training.state import TrainingState
from tests.conftest import ROOT, TINY, set_options
from tests.processes import Command, Moment

DEMO = ROOT / "configs" / "demo.yaml"
# Whatever draws at random is on; a checkpoint after each of the 24 steps.
RESTLESS = (
    "train={epochs: 8, batch_size: 16, noise: 0.1, shift: 1, spectral_jitter: 0.1, band_dropout: 0.1, "
    "weight_averaging: 0.9, checkpoint_every_s: 0}"
)
OPTIONS = set_options(*TINY, "model.width=0.25", RESTLESS)


@contextmanager
def limit_threads() -> Iterator[None]:
    """One thread, as in the processes: the bits depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Notes(Silent):
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, task: str, *, total: int, unit: str) -> None: ...
    def advance(self, count: int) -> None: ...
    def epoch(self, record: object) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)


class Impatient(Notes):
    """Ends the training in a step, as Ctrl-C would."""

    def __init__(self, *, in_step: int, look: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._left, self._look = in_step, look

    def advance(self, _count: int) -> None:
        self._look()
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


def train(*changes: str, run: Path, **limits: int | Moment) -> Command:
    log, options = run.with_name(f"{run.name}.log"), set_options(*OPTIONS[1::2], *changes)
    return Command("train", DEMO, *options, "--out", run, "--device", "cpu", log=log, **limits)


def resume(run: Path, **limits: int | Moment) -> Command:
    return Command("resume", run, log=run.with_name(f"{run.name}.log"), **limits)


def wait_for_epoch(run: Path, is_alive: Callable[[], bool]) -> None:
    """Until the progress of a training has the line of its first epoch."""
    progress = RunFolder(run).progress
    while not progress.is_file() or progress.read_bytes().count(b"\n") < 2:
        assert is_alive(), "ended early"
        time.sleep(0.005)


def same_weights(run: Path, whole: RunFolder) -> bool:
    return RunFolder.open(run).bundle_arrays.read_bytes() == whole.bundle_arrays.read_bytes()


def without_times(run: RunFolder) -> list[dict[str, object]]:
    times = {"patches_per_second", "elapsed_s"}
    return [record.model_dump(exclude=times) for record in run.read_record().history]


def check_resumed(run: Path, whole: RunFolder) -> None:
    """A run that was ended is resumed to the files, weights and epochs of the whole one."""
    assert resume(run).wait() == 0
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.path.iterdir()}
    assert same_weights(run, whole)
    assert without_times(RunFolder(run)) == without_times(whole)
    assert RunFolder(run).read_progress()[1] == RunFolder(run).read_record().history


class Quitter:
    """Keeps a training like another keeper, up to a step; there it ends it."""

    def __init__(self, keeper: Checkpoints, *, step: int) -> None:
        self._keeper, self._step = keeper, step
        self.restore, self.after_epoch = keeper.restore, keeper.after_epoch

    def after_step(self, state: TrainingState) -> None:
        self._keeper.after_step(state)
        if state.steps == self._step:
            raise ZeroDivisionError


def make_keeper(folder: Path, *, every_s: float = 0, notes: list[str] | None = None) -> Checkpoints:
    def note(text: str) -> None:
        assert notes is not None, text
        notes.append(text)

    return Checkpoints(folder=folder, run="this", every_s=every_s, stop=Stop(), note=note, rewind=lambda _: None)


def disguise(data: bytes, folder: Path) -> Path:
    """Writes bytes under a checkpoint's name, its digest right."""
    path = folder / f"step-99999999-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
    path.write_bytes(data)
    return path


def change_checkpoint(path: Path, **changes: object) -> Path:
    """Writes a checkpoint with other contents, its digest right, in place of one."""
    content = {**read_checkpoint(path), **changes}
    for other in list_checkpoints(path.parent):
        other.unlink()
    return disguise(checkpoint._to_bytes(content), path.parent)
