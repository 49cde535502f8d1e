"""Now, as it stands in records and in names."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp() -> str:
    """Now: RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def compact_timestamp() -> str:
    """Now, as part of a file name."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
