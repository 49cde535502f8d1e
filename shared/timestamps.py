"""The current time, as records and file names have it."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp() -> str:
    """Return the current time as RFC 3339 has it, in UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def compact_timestamp() -> str:
    """Return the current time in UTC as a part of a file name, such as 20260131T235959Z."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
