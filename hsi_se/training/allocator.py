"""Memory that is freed stays with the process, because every step of a training needs it again."""

import ctypes
import platform

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
