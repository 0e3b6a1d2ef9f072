"""Telling the C library to keep memory that a pass has freed for the next one.

By itself glibc gives the top of its heap back to the system whenever a backward pass has freed enough of it, and the
next forward pass touches every page of it anew: about 3 % of a pass of one thread, in the kernel, where a second thread
does not help. Kept, the same blocks also fit again, so that the peak is lower.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of the settings in malloc.h."""
LARGE = 32 * 2**20
"""Blocks of this size and more are mapped each for itself; more than this glibc does not take."""


def keep_freed_memory() -> bool:
    """Return whether the C library took the settings (glibc does); they hold for the process."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    return set_option is not None and bool(set_option(MMAP_THRESHOLD, LARGE)) and bool(set_option(TRIM_THRESHOLD, 2**31 - 1))


def give_back_freed_memory() -> None:
    """Return what is free to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
