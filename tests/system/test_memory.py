"""Memory that a training frees stays with the process."""

import platform
import subprocess
import sys

import pytest
import torch

from hsi_se.system import memory
from hsi_se.system.memory import keep_freed_memory

# Takes 64 MB, writes to them and frees them, again and again; prints how many pages the kernel had to find.
FAULTS = """
import ctypes, resource
import pytest
import torch

from hsi_se.system import memory
from hsi_se.system.memory import keep_freed_memory
assert {keep} is None or keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
def use():
    block = ctypes.c_void_p(c.malloc(ctypes.c_size_t(2**26)))
    c.memset(block, 1, ctypes.c_size_t(2**26))
    c.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_was_freed_is_not_fetched_from_the_kernel_again():
    faults = {
        keep: int(subprocess.check_output([sys.executable, "-c", FAULTS.format(keep=keep)], text=True))
        for keep in (None, True)
    }
    if platform.libc_ver()[0] != "glibc":  # other C libraries are left alone
        assert not keep_freed_memory()
        return
    assert faults[None] > 1000
    assert faults[True] < 100


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_a_system_without_glibc_and_proc_has_a_time_and_no_peak(system, tmp_path, monkeypatch):
    """Windows names no library of the process itself; that of macOS trims nothing."""

    def load(_: None) -> object:
        if system == "windows":
            raise TypeError
        return object()

    monkeypatch.setattr(memory.ctypes, "CDLL", load)
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory, "_RESET", tmp_path / "missing" / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing" / "status")
    assert not keep_freed_memory()
    cost = memory.Meter(torch.device("cpu")).stop()
    assert cost.peak_bytes is None
    assert cost.seconds >= 0
