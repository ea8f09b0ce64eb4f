"""Checkpoints: a training on the disk, whole at every moment; the last two are kept.

A checkpoint is safetensors, with what is no tensor as JSON in its header: data alone, less than even
`torch.load(weights_only=True)` would accept, so that nothing that is read back can run code. It is
called after its step and the SHA-256 of its bytes, so that a damaged one is known for what it is.
"""

import hashlib
import json
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

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

_FORMAT = 1  # another number: the version that reads it has to be the one that wrote it
_NUM_KEPT = 2
_SHARE = 0.01  # of the time, at most
_FIRST_COST_S = 0.05  # until one has been measured
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.safetensors")


class Keeper(Protocol):
    """Is shown a training at every step, and may begin it where an earlier one stopped."""

    def restore(self, state: TrainingState) -> None: ...

    def after_step(self, state: TrainingState) -> None: ...

    def after_epoch(self, state: TrainingState) -> None: ...


class Forgetful:
    """The keeper that keeps nothing."""

    def restore(self, state: TrainingState) -> None: ...

    def after_step(self, state: TrainingState) -> None: ...

    def after_epoch(self, state: TrainingState) -> None: ...


class Checkpoints:
    """Keeps a training in a folder: at the end of an epoch, and within it by the clock.

    Saving costs at most a hundredth of the time: after a checkpoint that took a second, the next one waits
    for a hundred, or for more within an epoch. It is never late for a signal.

    Args:
        folder: made with the first checkpoint.
        run: the digest of the config; a checkpoint of another run is refused.
        every_s: seconds between checkpoints within an epoch; 0 saves after every step, whatever it costs.
        stop: asks for an end after the step.
        note: is told of damage and of what may change the bits.
        rewind: is told of the epochs that are done when a training begins or goes on.
        world: the processes of the training; the first one writes for all.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        every_s: float,
        stop: Stop,
        note: Callable[[str], None],
        rewind: Callable[[Sequence[EpochRecord]], None],
        world: World | None = None,
    ) -> None:
        self._world = world or World()
        self._folder, self._run, self._every_s = folder, run, every_s
        self._stop, self._note, self._rewind = stop, note, rewind
        self._cost_s = _FIRST_COST_S
        self._last = time.perf_counter()

    def restore(self, state: TrainingState) -> None:
        """Brings a new training to where the newest whole checkpoint is; without any it begins anew.

        Raises:
            RunError: there are checkpoints, and none of them can be used.
        """
        paths = list_checkpoints(self._folder)
        damaged = []
        for path in paths:
            try:
                saved = read_checkpoint(path)
            except RunError as error:
                if path == paths[-1]:
                    raise RunError(f"{error}; no checkpoint is left, train again with --overwrite") from None
                self._note(f"{error}; the one before is used")
                damaged.append(path)
                continue
            self._load(state, saved, path)
            break
        if not self._world.agree(str(state.steps)):
            raise RunError(f"{self._folder}: not every process finds the same checkpoints; share the folder")
        if self._world.is_first:
            for path in damaged:  # it would count as one of those that are kept
                path.unlink(missing_ok=True)
        self._rewind(state.history)

    def _load(self, state: TrainingState, saved: Tree, path: Path) -> None:
        """Proves that a checkpoint is of this run and this version, and says what may change the bits."""
        if saved.get("format") != _FORMAT:
            raise RunError(f"{path}: was written by hsi-se {saved.get('hsi_se')}; go on with that version")
        if saved.get("run") != self._run:
            raise RunError(f"{path}: is a checkpoint of another run; remove it, or train again")
        for name, now in _surroundings().items():
            before = saved.get(name)
            if before != now:
                self._note(f"was saved with {name} {before}, goes on with {now}: the last bits may differ")
        try:
            state.load(saved["training"])
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(f"{path}: is no checkpoint of this run ({_shorten(error)}); train again") from None

    def after_step(self, state: TrainingState) -> None:
        """Saves if it is time; if a signal has come, always.

        Raises:
            Interrupted: a signal has come.
            OSError: the disk does not take it; the checkpoint before is still there.
        """
        if self._world.any(self._stop.signal_number is not None):
            self.save(state)
            number = self._stop.signal_number or signal.SIGTERM
            raise Interrupted(f"interrupted in epoch {state.epoch}", signal_number=number)
        if not self._every_s or self._is_due(max(self._every_s, self._cost_s / _SHARE)):
            self.save(state)

    def after_epoch(self, state: TrainingState) -> None:
        """Saves unless that would cost too much."""
        if not self._every_s or self._is_due(self._cost_s / _SHARE):
            self.save(state)

    def _is_due(self, after_s: float) -> bool:
        return time.perf_counter() - self._last >= after_s

    def save(self, state: TrainingState) -> None:
        """Writes a checkpoint; when it has been read back, all but the last two go."""
        if not self._world.is_first:
            return
        start = time.perf_counter()
        if not self._folder.exists():
            self._folder.mkdir()
            sync_folder(self._folder.parent)
        training = state.save()
        content = {"format": _FORMAT, "hsi_se": __version__, "run": self._run, **_surroundings()}
        data = _to_bytes({**content, "training": training})
        digest = hashlib.sha256(data).hexdigest()
        write_durably(self._folder / f"step-{state.steps:08}-{digest[:16]}.safetensors", data)
        for path in list_checkpoints(self._folder)[_NUM_KEPT:]:
            path.unlink()
        self._last = time.perf_counter()
        self._cost_s = self._last - start


def list_checkpoints(folder: Path) -> list[Path]:
    """Those in a folder, the newest first."""
    paths = [path for path in folder.glob("*") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (path.name.split("-")[1], path.stat().st_mtime_ns), reverse=True)


def read_checkpoint(path: Path) -> Tree:
    """Returns what was saved, tensors on the CPU.

    Raises:
        RunError: it is damaged, cannot be read, or was never a checkpoint.
    """
    match = _NAME.fullmatch(path.name)
    try:
        data = path.read_bytes()
        if match is None or not hashlib.sha256(data).hexdigest().startswith(match[2]):
            raise RunError(f"{path}: is damaged, cut short, or no checkpoint (its digest is another)")
        with safe_open(path, framework="pt") as file:
            tree = json.loads(file.metadata()["tree"])
        # Tensors of their own, laid out as new ones are: the same arithmetic on them gives the same bits.
        tensors = {name: value.clone() for name, value in load(data).items()}
        restored = _put_tensors(tree, tensors)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: is no checkpoint ({_shorten(error)})") from None
    if not isinstance(restored, dict):
        raise RunError(f"{path}: is no checkpoint (it holds no table)")
    return restored


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:80]


def _surroundings() -> dict[str, Any]:
    """What the same training may differ by in its last bits."""
    return {"torch": str(torch.__version__), "threads": torch.get_num_threads()}


def _to_bytes(tree: Tree) -> bytes:
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_take_tensors(tree, (), tensors))
    return save(tensors, metadata={"tree": text})


def _take_tensors(value: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """Returns a tree with the name of each tensor, `{"tensor": name}`, in its place."""
    match value:
        case Tensor():
            name = "/".join(path)
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": name}
        case dict():
            return {str(key): _take_tensors(item, (*path, str(key)), tensors) for key, item in value.items()}
        case list() | tuple():
            return [_take_tensors(item, (*path, str(n)), tensors) for n, item in enumerate(value)]
    return value


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    match value:
        case {"tensor": str(name), **rest} if not rest:
            return tensors[name]
        case dict():
            return {key: _put_tensors(item, tensors) for key, item in value.items()}
        case list():
            return [_put_tensors(item, tensors) for item in value]
    return value
