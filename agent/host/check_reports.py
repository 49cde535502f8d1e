"""The latest results of the checks of both sides, for those who look at the move.

::

    STATE/checks.json   results for the VM and for the volume

A preflight makes more checks than a pull. So a result stays until the same check has another one.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Literal

import msgspec
import structlog

from shared.checks import Check
from shared.durable import write_durably
from shared.timestamps import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = structlog.get_logger("agent")
_FILE = "checks.json"

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

    def write(self, side: Side, checks: Sequence[Check]) -> None:
        """Add results of one side. If that fails, log a warning and return."""
        now, names = timestamp(), {check.name for check in checks}
        with self._lock:
            try:
                known = self.read()
                kept = [each for each in known.get(side, []) if each.check.name not in names]
                known[side] = [*(DatedCheck(now, check) for check in checks), *kept]
                write_durably(self._path, msgspec.json.encode(known))
            except OSError as error:
                _log.warning("cannot keep results", path=self._path, reason=str(error))

    def read(self) -> dict[Side, list[DatedCheck]]:
        """Return what is known, by side. What another release wrote in another form is unknown."""
        try:
            with open(self._path, "rb") as file:
                return msgspec.json.decode(file.read(), type=dict[Side, list[DatedCheck]])
        except (FileNotFoundError, msgspec.MsgspecError):
            return {}
