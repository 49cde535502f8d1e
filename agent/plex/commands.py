"""Plex as a pair of commands of the administrator's that stop and start it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.host.state_owner import agent_user, can_execute
from agent.plex.processes import pids_of
from agent.plex.remains import remains
from agent.plex.run_command import Patience, run_command, wait_for
from agent.plex.service import BY_HAND, PlexService, Sight
from shared.errors import CutoverRefused

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from threading import Event

_START_SECONDS = 60.0
"""Time for a start_command. A container's command pulls no image, but may wait for a disk."""


@dataclass(frozen=True)
class Commands(PlexService):
    """Two commands, for a Plex without a unit. They must make sure that it stays stopped."""

    stop_command: Sequence[str]
    start_command: Sequence[str]
    _stops: list[subprocess.Popen[bytes]] = field(default_factory=list, compare=False, repr=False)
    """The stop command that exceeded its time limit, until it is given up or replaced."""

    @property
    def starting(self) -> Sequence[str]:
        """The start_command of the settings."""
        return self.start_command

    def may_run(self) -> bool:
        """Return True, because a Plex in a container may be invisible: always stop and start it."""
        return True

    def shows(self, pid: int) -> bool:
        """Return whether this is a visible process of Plex. A container may hide others."""
        return pid in pids_of("")

    def look(self) -> Sight:
        """Return whether processes or the port are visible. A stop under way is not visible."""
        return Sight.PRESENT if self.left() else Sight.GONE

    def is_stop_under_way(self) -> bool:
        """Return whether a stop_command that exceeded its time limit is still running."""
        return any(each.poll() is None for each in self._stops)

    def has_stop_failed(self) -> bool:
        """Return whether a stop_command that exceeded its time limit has failed since."""
        return any(each.poll() for each in self._stops)

    def give_up_stop(self) -> None:
        """Kill a stop_command that is still running."""
        for each in self._stops:
            each.kill()
            each.wait()
        self._stops.clear()

    def stop(self, seconds: float, ending: Event) -> None:
        """Run stop_command. If it takes too long, let it continue, as the stop itself would.

        An earlier one that still runs has to end first, so there is never more than one.
        """
        failed, patience = "the stop_command of the settings failed", Patience(ending, self._stops)
        while self._stops:
            wait_for(self._stops.pop(), seconds, failed, BY_HAND, patience)
        run_command(self.stop_command, seconds, failed, BY_HAND, patience)

    def start(self) -> None:
        """Run start_command. Ignore its failure if Plex is running nevertheless."""
        try:
            failed = "the start_command of the settings failed"
            run_command(self.start_command, _START_SECONDS, failed, BY_HAND)
        except CutoverRefused:
            if not self.is_running():
                raise

    def left(self) -> list[str]:
        """Return Plex's processes and its open port."""
        return remains("")

    def check_fence(self, path: str) -> None:
        """Raise an error unless both programs can be run. Without a unit, there is no fence."""
        user = agent_user(os.path.dirname(path))
        for setting, command in (("stop", self.stop_command), ("start", self.start_command)):
            program = shutil.which(command[0], os.F_OK) or command[0]
            if not can_execute(program, user):
                raise CutoverRefused(
                    f"{setting}_command cannot be run: its program is missing, or the agent's user"
                    " may not execute it",
                    path=program,
                    hint=f"Correct {setting}_command in the agent's settings, then restart the"
                    " agent.",
                )
