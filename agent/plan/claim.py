"""The size of the volume's claim, and how long the first copy takes."""

from __future__ import annotations

from dataclasses import dataclass

from shared.checks import size

_GIB = 1 << 30
_STEP = 5
_LEAST = 10
_BYTES_PER_SECOND = 100e6
"""What a link of 1 Gbit/s carries, see docs/performance.md."""
_LONG = 1800.0
"""Seconds of a first copy from which it is worth to make it days before."""


@dataclass(frozen=True)
class Claim:
    """The request for storage."""

    size: str
    """A Kubernetes quantity."""
    why: str
    """The arithmetic, as a sentence."""


def claim_for(content_bytes: int) -> Claim:
    """Return twice the size of the content, in steps of 5 GiB: Plex's caches and artwork grow."""
    steps = -(-2 * content_bytes // (_STEP * _GIB))
    gib = max(_LEAST, steps * _STEP)
    why = f"Twice the {size(content_bytes)} of the library, rounded up to {gib} GiB."
    return Claim(f"{gib}Gi", why)


def copy_seconds(content_bytes: int) -> float:
    """Return the seconds of the first copy over 1 Gbit/s."""
    return content_bytes / _BYTES_PER_SECOND


def is_long(seconds: float) -> bool:
    """Return whether the first copy should be made while Plex runs, days before the move."""
    return seconds > _LONG
