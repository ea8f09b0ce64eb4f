"""Measures time and peak memory, and sets the number of threads and the memory allocator."""

import ctypes
import gc
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

_RESET = Path("/proc/self/clear_refs")  # Linux only: writing "5" resets the peak to the current use
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """The wall time and memory that a piece of work took.

    The peak is that of the GPU's allocator, or of the whole process including interpreter and libraries;
    None where the system cannot measure the peak since a given moment.
    """

    seconds: float
    peak_bytes: int | None


class Meter:
    """Measures the work of a device from its creation to `stop`; earlier work does not count."""

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
        if self._is_gpu:
            return Cost(seconds, torch.cuda.max_memory_allocated(self._device))
        found = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        return Cost(seconds, found and 1024 * int(found[1]))


def _reset_peak() -> bool:
    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # returns memory that earlier work freed to the system
        _RESET.write_text("5")
    except (OSError, AttributeError, TypeError):  # Windows names no library of the process itself
        return False
    return True


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_NEVER, _HALF_ARENA = 2**31 - 1, 2**25  # bytes


def keep_freed_memory() -> bool:
    """Stops glibc from returning large blocks to the kernel. Returns whether this worked.

    By default, glibc returns each activation of a training step when it is freed, and the kernel clears
    every page of the next one. This takes a third of a step on the CPU. Other C libraries are left alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    malloc = ctypes.CDLL(None)
    keeps = [malloc.mallopt(_M_TRIM_THRESHOLD, _NEVER)]
    # Older versions accept at most half an arena as threshold.
    keeps += [malloc.mallopt(_M_MMAP_THRESHOLD, _NEVER) or malloc.mallopt(_M_MMAP_THRESHOLD, _HALF_ARENA)]
    return all(keeps)


def return_freed_memory() -> None:
    """Ends the effect of `keep_freed_memory`, and returns what was kept to the kernel."""
    if platform.libc_ver()[0] == "glibc":
        malloc = ctypes.CDLL(None)
        malloc.mallopt(_M_TRIM_THRESHOLD, _HALF_ARENA)
        malloc.mallopt(_M_MMAP_THRESHOLD, _HALF_ARENA)
        malloc.malloc_trim(0)


@contextmanager
def fixed_threads(num: int) -> Iterator[None]:
    """Inside, torch, BLAS and OpenMP use `num` threads. The number affects the rounding of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        with threadpool_limits(num):
            yield
    finally:
        torch.set_num_threads(before)
