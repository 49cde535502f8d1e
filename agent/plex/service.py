"""The operations on Plex that a cutover needs, whatever manages its process."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from shared.errors import CutoverRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

    from agent.plex.container import ContainerRecord

BY_HAND = "Or stop Plex yourself, and pull with --no-cutover."
"""The way that is always left, for hints."""


class NotBegun(CutoverRefused):
    """An order that has no effect, now or later: nobody was there to take it, or it was refused.

    A program that ran and failed is another case, and so is a container engine that failed. What
    they began may have its effect minutes later.
    """


class Sight(Enum):
    """The visible state of Plex."""

    RUNS = "it runs, and nothing stops it"
    PRESENT = "something of it is there, but a stop may be under way"
    GONE = "nothing of it can be seen"


class PlexService(Protocol):
    """The operations on Plex that a cutover needs. All of them may block."""

    @property
    def starting(self) -> Sequence[str]:
        """The command that starts Plex; none for a container."""
        return ()

    def record(self) -> ContainerRecord | None:
        """Return what an undo has to know of a container; None without one.

        Raises:
            CutoverRefused: If the engine does not describe it.
        """
        return None

    def look(self) -> Sight:
        """Return the visible state of Plex."""

    def left(self) -> list[str]:
        """Return one line for each remaining process or open port; empty if Plex has stopped."""

    def is_running(self) -> bool:
        """Return whether Plex is running, starting or stopping."""
        return bool(self.left())

    @property
    def proof(self) -> str:
        """The result of :meth:`left` if nothing is left, in words for the log."""
        return "no process, no open port"

    def shows(self, pid: int) -> bool:
        """Return whether :meth:`left` has this process, as long as it runs."""
        del pid
        return False

    def may_run(self) -> bool:
        """Return whether Plex is running, or True if that cannot be determined."""
        return self.is_running()

    def run(self) -> str:
        """Return an identifier of Plex's last start; empty without one."""
        return ""

    def stop(self, seconds: float, ending: Event) -> None:
        """Stop Plex within ``seconds``. ``ending``, set when the agent itself stops, ends the wait.

        Raises:
            CutoverRefused: If Plex did not stop in time. The stop may continue nevertheless,
                because killing the client of a container engine does not cancel it.
        """

    def is_stop_under_way(self) -> bool:
        """Return whether a stop that this process began continues, and :meth:`look` misses it."""
        return False

    def has_stop_failed(self) -> bool:
        """Return whether such a stop has ended with a failure. Plex may still end because of it."""
        return False

    def give_up_stop(self) -> None:
        """End and forget a stop that this process began, unless a start replaces it anyway."""
        return

    def start(self) -> None:
        """Start Plex unless it is running.

        Raises:
            CutoverRefused: If Plex cannot be started.
        """

    def block_starts(self) -> None:
        """Have Plex's manager refuse each start, for good, where the fence alone does not.

        Raises:
            CutoverRefused: If that is not possible.
        """
        return

    def allow_starts(self, record: ContainerRecord) -> None:
        """Reverse :meth:`block_starts`.

        Raises:
            CutoverRefused: If that is not possible.
        """
        del record

    def check_fence(self, path: str) -> None:
        """Raise an error unless the agent can stop and start Plex, and ``path`` works as a fence.

        Args:
            path: path of the fence. While it exists, nothing may start Plex.

        Raises:
            CutoverRefused: If a condition is not met.
        """
