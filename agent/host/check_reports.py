"""The latest results of the checks of both sides, for those who look at the move.

::

    STATE/checks.json   results for the VM and for the volume

A preflight makes all checks, a pull some. So a pull replaces only the results of its own checks.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Literal

import msgspec
import structlog

from shared import typed_json
from shared.checks import Check
from shared.durable import write_durably
from shared.timestamps import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = structlog.get_logger("agent")
_FILE = "checks.json"
_MOST = 100
"""Results of one side that are kept."""

Side = Literal["source", "target"]


class DatedCheck(msgspec.Struct, frozen=True):
    """A result, and when it arrived."""

    at: str
    """RFC 3339, UTC."""
    check: Check


class CheckReports:
    """The results in the folder ``state``. Methods block briefly, in any thread."""

    def __init__(self, state: str) -> None:
        self._path = os.path.join(state, _FILE)
        self._lock = threading.Lock()

    def write(self, side: Side, checks: Sequence[Check], *, are_all: bool) -> None:
        """Add results of one side, or replace all of them if these are those of a preflight.

        If that fails, log a warning and return.
        """
        now, names = timestamp(), {check.name for check in checks}
        with self._lock:
            known = self.read()
            kept = [each for each in known.get(side, []) if each.check.name not in names]
            known[side] = [DatedCheck(now, check) for check in checks]
            if not are_all:
                known[side] = [*known[side], *kept][:_MOST]
            try:
                write_durably(self._path, msgspec.json.encode(known))
            except OSError as error:
                _log.warning("cannot keep results", path=self._path, reason=str(error))

    def read(self) -> dict[Side, list[DatedCheck]]:
        """Return what is known, by side. What cannot be read, or has another form, is unknown."""
        try:
            with open(self._path, "rb") as file:
                return typed_json.decode(file.read(), dict[Side, list[DatedCheck]])
        except (OSError, msgspec.DecodeError):
            return {}
