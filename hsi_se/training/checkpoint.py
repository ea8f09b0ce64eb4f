"""Saves and restores the state of a training run; the last two checkpoints are kept.

A checkpoint is a safetensors file. Values that are not tensors are stored as JSON in its header.
Unlike a pickle, such a file cannot run code when it is read. Its name contains the step and the
beginning of the SHA-256 of its bytes, so damage is detected. Files are written atomically.
"""

import hashlib
import json
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from hsi_se.errors import Interrupted, RunError
from hsi_se.progress import EpochRecord
from hsi_se.system.files import sync_folder, write_durably
from hsi_se.system.processes import Stop
from hsi_se.training.distributed import World
from hsi_se.training.state import TrainingState, Tree
from hsi_se.version import __version__

_FORMAT = 2  # checkpoints of another format are refused: only the version that wrote them can read them
_NUM_KEPT = 2
_MAX_TIME_FRACTION = 0.01  # of the training time that may be spent on saving
_FIRST_COST_S = 0.05  # assumed time of a save until one has been measured
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.safetensors")


class Keeper:
    """Saves a training run as it proceeds and restores it when it is resumed; this one does neither.

    `restore` is called once, before the first step.
    """

    def restore(self, state: TrainingState) -> None: ...

    def after_step(self, state: TrainingState) -> None: ...

    def after_epoch(self, state: TrainingState, *, is_last: bool) -> None: ...


@dataclass(kw_only=True, eq=False)
class Checkpoints(Keeper):
    """Writes checkpoints to a folder, at the end of epochs and at intervals within them.

    Saving takes at most 1 % of the training time: after a save of one second, the next one follows at
    least 100 seconds later. A signal to stop always saves at once.
    """

    folder: Path  # created with the first checkpoint
    run: str  # digest of the config; a checkpoint of another run is refused
    every_s: float  # seconds between checkpoints within an epoch; 0 saves after every step, regardless of cost
    stop: Stop  # records a signal that asks training to stop after the current step
    note: Callable[[str], None]  # receives messages on a damaged checkpoint, or a change that may affect rounding
    rewind: Callable[[Sequence[EpochRecord]], None]  # receives the finished epochs when training starts or resumes
    world: World = field(default_factory=World)  # the processes of the run; the first one writes for all
    saves_last: bool = False  # whether to save after the last epoch in any case, because other work follows
    _cost_s: float = field(default=_FIRST_COST_S, init=False)
    _last: float = field(default_factory=time.perf_counter, init=False)

    def restore(self, state: TrainingState) -> None:
        """Loads the newest intact checkpoint into `state`; without any checkpoint `state` is unchanged.

        RunError if the folder contains checkpoints, but none of them can be used.
        """
        paths = list_checkpoints(self.folder)
        damaged = []
        for path in paths:
            try:
                saved = read_checkpoint(path)
            except RunError as error:
                if path == paths[-1]:
                    raise RunError(f"{error}; no usable checkpoint is left; train again with --overwrite") from None
                self.note(f"{error}; using the previous checkpoint")
                damaged.append(path)
                continue
            self._load(state, saved, path)
            break
        if not self.world.agree(str(state.steps)):
            raise RunError(
                f"{self.folder}: the processes found different checkpoints; "
                "use a run folder on storage that all of them share"
            )
        if self.world.is_first:
            for path in damaged:  # otherwise they would count towards the two that are kept
                path.unlink(missing_ok=True)
        self.rewind(state.history)

    def _load(self, state: TrainingState, saved: Tree, path: Path) -> None:
        """Checks a checkpoint's format and run, notes changes that affect rounding, and loads it."""
        if saved.get("format") != _FORMAT:
            raise RunError(f"{path}: was written by hsi-se {saved.get('hsi_se')}; resume with that version")
        if saved.get("run") != self.run:
            raise RunError(f"{path}: is a checkpoint of another run; remove it, or train again")
        for name, now in _describe_environment().items():
            before = saved.get(name)
            if before != now:
                self.note(
                    f"saved with {name} = {before}, resumed with {name} = {now}: weights may differ in the last bits"
                )
        try:
            state.load(saved["training"])
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(f"{path}: is not a checkpoint of this run ({_shorten(error)}); train again") from None

    def after_step(self, state: TrainingState) -> None:
        """Saves if a checkpoint is due or a signal has arrived, and then raises Interrupted.

        OSError if the checkpoint could not be written; the previous one is intact.
        """
        if self.world.any(self.stop.signal_number is not None):
            self.save(state)
            number = self.stop.signal_number or signal.SIGTERM
            raise Interrupted(f"interrupted in epoch {state.epoch}", signal_number=number)
        self._save_if_due(state, after_s=self.every_s)

    def after_epoch(self, state: TrainingState, *, is_last: bool) -> None:
        """Saves unless that would exceed the time budget for saving; see `saves_last`."""
        if is_last and self.saves_last:
            self.save(state)
        else:
            self._save_if_due(state)

    def _save_if_due(self, state: TrainingState, *, after_s: float = 0.0) -> None:
        """Saves unless that would exceed the time budget for saving."""
        after_s = max(after_s, self._cost_s / _MAX_TIME_FRACTION)
        if not self.every_s or time.perf_counter() - self._last >= after_s:
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """Writes a checkpoint durably, then deletes all but the last two."""
        if not self.world.is_first:
            return
        start = time.perf_counter()
        if not self.folder.exists():
            self.folder.mkdir()
            sync_folder(self.folder.parent)
        training = state.save()
        content = {"format": _FORMAT, "hsi_se": __version__, "run": self.run, **_describe_environment()}
        data = _to_bytes({**content, "training": training})
        digest = hashlib.sha256(data).hexdigest()
        write_durably(self.folder / f"step-{state.steps:08}-{digest[:16]}.safetensors", data)
        for path in list_checkpoints(self.folder)[_NUM_KEPT:]:
            path.unlink()
        self._last = time.perf_counter()
        self._cost_s = self._last - start


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the paths of a folder's checkpoints, newest first."""
    paths = [path for path in folder.glob("*") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (path.name.split("-")[1], path.stat().st_mtime_ns), reverse=True)


def read_checkpoint(path: Path) -> Tree:
    """Returns the contents of a checkpoint, with its tensors on the CPU.

    RunError if the file is damaged, unreadable or not a checkpoint.
    """
    match = _NAME.fullmatch(path.name)
    try:
        data = path.read_bytes()
        if match is None or not hashlib.sha256(data).hexdigest().startswith(match[2]):
            raise RunError(f"{path}: is damaged, truncated or not a checkpoint (its SHA-256 does not match its name)")
        with safe_open(path, framework="pt") as file:
            tree = file.metadata()["tree"]
        # Clones are laid out in memory like new tensors, so the same arithmetic on them gives the same bits.
        tensors = {name: value.clone() for name, value in load(data).items()}
        restored = json.loads(tree, object_hook=lambda node: tensors[node["tensor"]] if [*node] == ["tensor"] else node)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: is not a checkpoint ({_shorten(error)})") from None
    if not isinstance(restored, dict):
        raise RunError(f"{path}: is not a checkpoint (its contents are not a mapping)")
    return restored


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:80]


def _describe_environment() -> dict[str, Any]:
    """Returns the facts about this process that affect rounding."""
    return {"torch": str(torch.__version__), "threads": torch.get_num_threads()}


def _to_bytes(tree: Tree) -> bytes:
    """Returns a safetensors file of a tree's tensors, with the tree as JSON, `{"tensor": name}` for each of them."""
    tensors: dict[str, Tensor] = {}

    def take(tensor: Tensor) -> dict[str, str]:
        name = str(len(tensors))
        tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}

    text = json.dumps(tree, default=take)
    return save(tensors, metadata={"tree": text})
