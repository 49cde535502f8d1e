"""Has the C library keep memory that is freed, for the next buffer of the same size."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEEP = 32 * 1024 * 1024


def keep_freed_memory() -> None:
    """Let buffers of a few MiB come from memory that was used before (mallopt(3)).

    By default glibc gives each such buffer fresh pages, which the kernel must zero: that measured
    0.8 s a GB, and twice the time for TLS. One arena for all threads, so that what one of them
    frees is there for the next, and not kept once for each. Other C libraries do not know this,
    and go on as before.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEEP)
        mallopt(_M_TRIM_THRESHOLD, _KEEP)
        mallopt(_M_ARENA_MAX, 1)
