"""What a piece of work costs: its time, and the most memory held meanwhile."""

import ctypes
import gc
import time
from dataclasses import dataclass
from pathlib import Path

import torch

_RESET = Path("/proc/self/clear_refs")  # Linux alone: "5" lowers the process's peak to what it holds now
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """What a piece of work has cost.

    Attributes:
        seconds: of the wall clock.
        peak_bytes: of the GPU's allocator, or of the whole process, interpreter and libraries included;
            None where the system cannot tell what was held since the start.
    """

    seconds: float
    peak_bytes: int | None


class Meter:
    """Measures from its making to `stop`; earlier work of the process does not count.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_gpu = device.type == "cuda"
        if self._is_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        self._can_tell = self._is_gpu or _reset_peak()
        self._start = time.perf_counter()

    def stop(self) -> Cost:
        if self._is_gpu:
            torch.cuda.synchronize(self._device)
        seconds = time.perf_counter() - self._start
        if not self._can_tell:
            return Cost(seconds, None)
        return Cost(seconds, torch.cuda.max_memory_allocated(self._device) if self._is_gpu else _read_peak())


def _reset_peak() -> bool:
    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what earlier work has freed goes back to the system
        _RESET.write_text("5")
    except (OSError, AttributeError):
        return False
    return True


def _read_peak() -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])
