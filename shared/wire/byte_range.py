"""Byte ranges of ``Range`` and ``Content-Range`` (RFC 9110 section 14).

If a request has several ranges, the whole content is sent instead, as section 14.2 allows.
"""

from __future__ import annotations

import re
from typing import NamedTuple

UNIT = "bytes"
_INT_RANGE = re.compile(r"([0-9]{1,1000})-([0-9]{1,1000})?")
_SUFFIX_RANGE = re.compile(r"-([0-9]{1,1000})")


class AskedRange(NamedTuple):
    """The range that a client requests, before the content's length is known."""

    first: int | None
    """Position of the first byte; None if :attr:`last` counts bytes from the end."""
    last: int | None
    """Position of the last byte, inclusive; None for everything after :attr:`first`."""


def parse_range(header: str) -> AskedRange | None:
    """Return the single range in ``header``; None if the header must be ignored.

    Other units, several ranges and malformed ranges are ignored (RFC 9110 section 14.2).
    """
    unit, _, ranges = header.partition("=")
    if unit.strip().lower() != UNIT:
        return None
    specs = [spec.strip() for spec in ranges.split(",") if spec.strip()]
    if len(specs) != 1:
        return None
    if found := _SUFFIX_RANGE.fullmatch(specs[0]):
        return AskedRange(None, int(found[1]))
    if (found := _INT_RANGE.fullmatch(specs[0])) is None:
        return None
    first, last = int(found[1]), int(found[2]) if found[2] else None
    if last is not None and last < first:
        return None
    return AskedRange(first, last)


def resolve(asked: AskedRange, size: int) -> range | None:
    """Return the positions that ``asked`` selects of ``size`` bytes; None if it selects none."""
    if asked.first is None:
        found = range(max(0, size - (asked.last or 0)), size)
    else:
        stop = size if asked.last is None else min(asked.last + 1, size)
        found = range(asked.first, stop)
    return found if len(found) > 0 else None


def content_range(part: range, size: int) -> str:
    """Return the ``Content-Range`` of a 206 response."""
    return f"{UNIT} {part.start}-{part.stop - 1}/{size}"


def unsatisfied_range(size: int) -> str:
    """Return the ``Content-Range`` of a 416 response."""
    return f"{UNIT} */{size}"
