"""The current time: as records and file names have it, and since the machine started."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def timestamp() -> str:
    """Return the current time as RFC 3339 has it, in UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def compact_timestamp() -> str:
    """Return the current time in UTC as a part of a file name, such as 20260131T235959Z."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def boottime() -> float:
    """Return seconds since the machine started: nobody can set that clock, and sleep counts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
