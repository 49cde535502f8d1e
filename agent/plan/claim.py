"""The size of the volume's claim, and how long the first copy takes."""

from __future__ import annotations

from shared.checks import size

_GIB = 1 << 30
_STEP = 5
_LEAST = 10
_AN_ENTRY = 4096
"""Bytes that an entry takes beside its content, at the most usual."""
_FULL = 1.25
"""A claim is kept until the library takes more than four fifths of it."""
_BYTES_PER_SECOND = 100e6
"""What a link of 1 Gbit/s carries, see docs/performance.md."""
_LONG = 1800.0
"""Seconds of a first copy from which it is worth to make it days before."""


def claim_gib(content_bytes: int, entries: int, before: int = 0) -> int:
    """Return the GiB to ask for: twice the library, in steps of 5, because Plex's artwork grows.

    The size ``before`` stays as long as the library fits: a StatefulSet cannot change it.
    """
    taken = content_bytes + entries * _AN_ENTRY
    if before and taken * _FULL <= before * _GIB:
        return before
    return max(_LEAST, -(-2 * taken // (_STEP * _GIB)) * _STEP)


def arithmetic(content_bytes: int, entries: int, gib: int) -> str:
    """Return how a claim of ``gib`` GiB came about, as a sentence."""
    return (
        f"{size(content_bytes)} in {entries} entries of {size(_AN_ENTRY)} or more; twice that, in"
        f" steps of {_STEP} GiB, was {gib} GiB."
    )


def copy_seconds(content_bytes: int) -> float:
    """Return the seconds of the first copy over 1 Gbit/s."""
    return content_bytes / _BYTES_PER_SECOND


def is_long(seconds: float) -> bool:
    """Return whether the first copy should be made while Plex runs, days before the move."""
    return seconds > _LONG
