"""The log line with which a program of ours fails: its fields, and how another program reads it."""

from __future__ import annotations

import msgspec

EVENT = "failed"


class Failure(msgspec.Struct, frozen=True):
    """The fields of that line."""

    reason: str
    """The error's message, for people."""
    exit_code: int
    kind: str
    """The error's class, see :mod:`shared.errors`."""


class _Event(msgspec.Struct):
    event: str


def read_failure(log: bytes) -> Failure | None:
    """Return the failure in the ``log`` of a program that has ended: its stderr, lines of JSON."""
    for line in reversed(log.splitlines()):
        try:
            if msgspec.json.decode(line, type=_Event).event == EVENT:
                return msgspec.json.decode(line, type=Failure)
        except (msgspec.MsgspecError, UnicodeError):
            continue  # something else was printed
    return None
