"""Plex as a systemd unit, controlled with ``systemctl``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from agent.plex.polkit import PACKAGED_UNITS, SNAP_UNIT, check_rights
from agent.plex.processes import pids_of
from agent.plex.remains import remains
from agent.plex.run_command import Patience, run_command
from agent.plex.service import BY_HAND, PlexService, Sight
from agent.plex.unit_files import is_fenced
from shared.errors import CutoverRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

_FENCE = "ConditionPathExists=!"
"""The condition of the fence. systemd skips the start, so an upgrade of Plex's package succeeds."""
_SECONDS = 8.0
"""Time for a query of systemd, and for a start. A unit that is still stopping takes longer."""

_REFUSED = 4
"""Exit code of systemctl if systemd has queued no job, as for want of a right (EXIT_NOPERMISSION in
translate_bus_error_to_exit_status of systemd)."""


@dataclass(frozen=True)
class SystemdUnit(PlexService):
    """A systemd unit, controlled with ``systemctl``. A polkit rule lets the agent's user do that.

    Root needs no polkit. If root acts for the agent of another user, files are written as that user
    and ``systemctl`` runs as root (:mod:`agent.host.state_owner`).
    """

    unit: str

    @property
    def starting(self) -> Sequence[str]:
        """The ``systemctl`` command."""
        return self._ordering("start")

    def is_running(self) -> bool:
        """Return whether the unit is active, starting or stopping."""
        return self._show("ActiveState") not in ("inactive", "failed", "")

    def look(self) -> Sight:
        """Return the unit's state. A unit with a pending job is about to change, so not RUNS."""
        state = self._show("ActiveState")
        if state == "active" and self._show("Job") in ("", "0"):
            return Sight.RUNS
        return Sight.GONE if state in ("inactive", "failed", "") else Sight.PRESENT

    def run(self) -> str:
        """Return the invocation id (systemd.exec(5)): new with each start, empty after a boot."""
        return self._show("InvocationID")

    def stop(self, seconds: float, ending: Event) -> None:
        """Stop the unit. systemd kills processes that exceed the unit's own time limit."""
        self._order("stop", seconds, ending)

    def start(self) -> None:
        """Start the unit. If it is still stopping, wait for a few seconds.

        A running unit is left alone: if polkit has refused the stop, it would refuse the start.
        """
        if self.look() is Sight.RUNS:
            return
        self._order("start", _SECONDS)
        if not self.is_running():  # systemctl succeeds even if a condition made systemd skip it
            skipped = self._show("ConditionResult") == "no"
            why = "a condition of the unit is not met" if skipped else "it ended at once"
            raise CutoverRefused(
                f"{self.unit} is not running after its start ({why})",
                hint=f"Find the cause with 'systemctl status {self.unit}'.",
            )

    def left(self) -> list[str]:
        """Return the unit's state unless it is inactive, Plex's processes, and its open port."""
        state = self._show("ActiveState")
        unit = [] if state in ("inactive", "failed") else [f"{self.unit} is {state or 'unknown'}"]
        return [*unit, *remains(self._id)]

    def shows(self, pid: int) -> bool:
        """Return whether this is a process of the unit, or another one of Plex that is visible."""
        return pid in pids_of(self._id)

    def check_fence(self, path: str) -> None:
        """Raise an error unless a drop-in has the condition. The package has it for Plex's unit."""
        if self._show("LoadState") != "loaded":
            raise CutoverRefused(
                f"systemd has no unit {self.unit} to stop",
                hint="Set one of these in the agent's settings, then restart the agent: 'unit' (the"
                f" snap's is {SNAP_UNIT}), 'container', or 'stop_command' and 'start_command'."
                f" {BY_HAND}",
            )
        if self._show("NeedDaemonReload") == "yes":
            raise CutoverRefused(
                f"the files of {self.unit} have changed, and systemd has not read them yet",
                hint="Run 'systemctl daemon-reload', then pull again.",
            )
        self._check_drop_ins(path)
        check_rights(self._id, os.path.dirname(path), BY_HAND)

    def _check_drop_ins(self, path: str) -> None:
        if is_fenced(self._show("DropInPaths").split(), path):
            return
        raise CutoverRefused(
            f"nothing would keep {self.unit} from starting again after the move",
            path=f"/etc/systemd/system/{self._id}.d/plexodus.conf",
            hint=f"Create this file with '[Unit]' and '{_FENCE}{path}', run 'systemctl"
            f" daemon-reload', then pull again. The package has such a file for"
            f" {' and '.join(PACKAGED_UNITS)}. A later drop-in must not reset the conditions: see"
            f" 'systemctl cat {self.unit}'.",
        )

    @cached_property
    def _id(self) -> str:
        """The unit's full name, even if the settings have an alias or no suffix."""
        return self._show("Id") or self.unit

    def _order(self, verb: str, seconds: float, ending: Event | None = None) -> None:
        hint = f"Find the cause with 'journalctl -u {self.unit}'. {BY_HAND}"
        failed = f"{self.unit} did not {verb}"
        patience = None if ending is None else Patience(ending, refusal=_REFUSED)
        run_command(self._ordering(verb), seconds, failed, hint, patience)

    def _ordering(self, verb: str) -> list[str]:
        return ["systemctl", "--no-ask-password", verb, "--", self.unit]

    def _show(self, name: str) -> str:
        command = ["systemctl", "show", f"--property={name}", "--value", "--", self.unit]
        failed = f"systemd does not report the state of {self.unit}"
        hint = f"Check that the agent runs on the machine with this unit. {BY_HAND}"
        return run_command(command, _SECONDS, failed, hint).strip()
