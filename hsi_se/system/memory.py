"""What a piece of work costs in time and memory, and the threads and the allocator it works with."""

import ctypes
import gc
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

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
    except (OSError, AttributeError, TypeError):  # Windows names no library of the process itself
        return False
    return True


def _read_peak() -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_NEVER, _HALF_ARENA = 2**31 - 1, 2**25  # bytes


def keep_freed_memory() -> bool:
    """Stops glibc from returning large blocks to the kernel, and returns whether it has.

    It returns each activation of a step as soon as it is freed, and the kernel clears every page of the
    next one: a third of a step on the CPU. Other C libraries are left alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    malloc = ctypes.CDLL(None)
    keeps = [malloc.mallopt(_M_TRIM_THRESHOLD, _NEVER)]
    # Older ones take no larger threshold than half of an arena.
    keeps += [malloc.mallopt(_M_MMAP_THRESHOLD, _NEVER) or malloc.mallopt(_M_MMAP_THRESHOLD, _HALF_ARENA)]
    return all(keeps)


@contextmanager
def fixed_threads(num: int) -> Iterator[None]:
    """Inside, torch, BLAS and OpenMP compute with so many threads, which decides how sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        with threadpool_limits(num):
            yield
    finally:
        torch.set_num_threads(before)
