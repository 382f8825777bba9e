"""How this process's allocator deals with what is large and lives shortly: pictures, tensors on their way to a disk."""

from __future__ import annotations

import ctypes

_M_TOP_PAD, _M_MMAP_THRESHOLD = -2, -3
"""Their numbers in glibc's malloc.h."""


def keep_heap_small() -> None:
    """From now on blocks of 1 MiB and more come from 64 MiB kept at the heap's end, which is fast, or else from the system and go back to it.

    glibc would learn from the first freed ones to put all of them on the heap, where small things that stay pin the room of large ones long
    gone. (That is how we read 2.8 GiB that ten minutes of 1080p took.) On a system without mallopt nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TOP_PAD, 2**26)
        mallopt(_M_MMAP_THRESHOLD, 2**20)


def trim_heap() -> None:
    """Gives the system back what was freed and the allocator keeps. On a system without malloc_trim nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
