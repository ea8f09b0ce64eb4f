"""Memory that a training frees stays with the process."""

import platform
import subprocess
import sys

from hsi_se.system.memory import keep_freed_memory

# Takes 64 MB, writes to them and frees them, again and again; prints how many pages the kernel had to find.
FAULTS = """
import ctypes, resource
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
