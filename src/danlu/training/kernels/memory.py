"""How this process asks the system for memory: large buffers are kept and used again instead of mapped anew each time.

A training step allocates and frees the same buffers of some megabytes thousands of times. glibc gives each of them
back to the system at once by default, and every page then has to be zeroed and mapped again.

Reference: mallopt(3).
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""glibc refuses more than this on 64-bit systems."""


def prepare_process() -> bool:
    """Set the allocator up for training; return whether that was possible (glibc only). Call it before torch allocates."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch then asks for huge pages for buffers of 2 MB and more
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # glibc takes an int, so 1 GiB is as good as never.
    settings = ((M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD), (M_TRIM_THRESHOLD, 2**30), (M_TOP_PAD, 64 * 2**20))
    return all(mallopt(name, value) == 1 for name, value in settings)
