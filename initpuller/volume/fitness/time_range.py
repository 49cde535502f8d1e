"""Find the resolution and the range of the times that a volume keeps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.fidelity import Fidelity
from shared.tree.manifest import MAX_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable

_SECOND = 10**9
_STEPS = (1, 100, 1_000, 1_000_000, _SECOND, 2 * _SECOND)
"""Nanoseconds: ext4, XFS; SMB and NTFS; some FUSE filesystems; ext3 and ext4 with 128-byte inodes;
FAT. Kernels round down to them (timestamp_truncate)."""
_SAMPLES = (1_600_000_001_987_654_321, 1_700_000_002_123_456_789, 1_234_567_890_000_000_301)
_FAR = MAX_TIME // _SECOND


def time_fidelity(fd: int, needed_ns: Iterable[int]) -> Fidelity | None:
    """Return which times the volume of the file ``fd`` keeps; None if it follows no known rule.

    The times ``needed_ns``, in nanoseconds since 1970, must be kept as the result says.
    """
    kept = {sample: _set(fd, sample) for sample in _SAMPLES}
    fitting = (s for s in _STEPS if all(have == time - time % s for time, have in kept.items()))
    step = next(fitting, None)
    if step is None:
        return None
    near = _SAMPLES[0] // _SECOND
    latest, earliest = _bound(fd, step, near, _FAR), _bound(fd, step, near, -_FAR)
    found = Fidelity(step, earliest, latest)
    is_right = all(_is_kept(fd, found.time(each), found.time(each)) for each in needed_ns)
    return found if is_right else None


def _bound(fd: int, step: int, good: int, bad: int) -> int | None:
    """Return the last time from ``good`` towards ``bad`` that is kept; None if all are kept.

    Both are in seconds since 1970; the result is in nanoseconds.
    """
    if _keeps_second(fd, step, bad):
        return None
    while abs(good - bad) > 1:
        middle = (good + bad) // 2
        if _keeps_second(fd, step, middle):
            good = middle
        else:
            bad = middle
    time = good * _SECOND
    return time + -time % step if bad < good else time - time % step


def _keeps_second(fd: int, step: int, second: int) -> bool:
    time = second * _SECOND
    return _is_kept(fd, time, time - time % step)


def _is_kept(fd: int, time: int, wanted: int) -> bool:
    try:
        return _set(fd, time) == wanted
    except (OSError, OverflowError):
        return False


def _set(fd: int, time: int) -> int:
    os.utime(fd, ns=(time, time))
    return os.fstat(fd).st_mtime_ns
