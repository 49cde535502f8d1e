"""The restart of Plex, even if the stop of it has not ended yet.

An order to start a Plex that is still stopping does nothing: a container engine responds that it
runs. So an undo is over only when Plex has been seen running for a while after the end of the stop.
A stop that has failed may have its effect later, too: if Plex waits for its disk, an engine's
SIGKILL ends it only when the disk answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.plex.service import Sight

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.cutover.state import Cutover
    from agent.plex.service import PlexService

_STEADY = 3.0
"""Seconds for which Plex must be seen running without a break."""
_AGAIN = 5.0
"""Seconds between two orders to start it."""
_LEAST_PATIENCE = 60.0
"""Seconds after the order to stop Plex in which it may still stop, at least."""


class PlexRestart:
    """Takes one step at a time. Nothing here waits for Plex.

    Args:
        plex: the service to start.
        stop_seconds: time that Plex may take to stop.
        clock: seconds since the machine started.
    """

    def __init__(self, plex: PlexService, stop_seconds: float, clock: Callable[[], float]) -> None:
        self._plex = plex
        self._patience = max(_LEAST_PATIENCE, 2 * stop_seconds)
        self._clock = clock
        self._forget("")

    def _forget(self, cutover: str) -> None:
        self._cutover = cutover
        self._was_down = False
        self._is_awaited = self._has_stop_ended = False
        self._started: float | None = None
        self._is_start_lasting = False
        """Whether the stop could no longer end what the last start began."""
        self._up_since: float | None = None

    def is_done(self, cutover: Cutover) -> bool:
        """Take the next step; return whether Plex runs and will continue to run.

        If Plex is invisible (a container with namespaces of its own), the proof is that the
        stop_command has succeeded, or its time is over, and the start_command after that, too.

        Raises:
            CutoverRefused: If it cannot be started now.
        """
        if self._cutover != cutover.id:
            self._forget(cutover.id)
        sight = self._plex.look()
        if sight is Sight.RUNS and self._started is None and cutover.stop_ordered is None:
            return True  # nobody has stopped it, or somebody else has started it
        is_visible = cutover.was_seen or sight is not Sight.GONE
        self._was_down = self._was_down or (is_visible and sight is Sight.GONE)
        is_under_way = self._plex.is_stop_under_way()
        if self._is_awaited and not is_under_way and not self._plex.has_stop_failed():
            self._has_stop_ended = True
        self._is_awaited = is_under_way
        is_open = self._may_still_stop(cutover)
        if is_under_way and not self._was_down and (is_open or sight is Sight.PRESENT):
            return False
        self._plex.give_up_stop()
        if self._is_to_be_started(sight, is_open=is_open):
            self._plex.start()
            self._started, self._is_start_lasting = self._clock(), not is_open
            sight = self._plex.look()
        if sight is Sight.GONE:
            self._up_since = None
            return not is_visible and not is_open
        if self._up_since is None:
            self._up_since = self._clock()
        is_open = is_open and sight is not Sight.RUNS
        return not is_open and self._clock() - self._up_since >= _STEADY

    @property
    def has_stop_ended(self) -> bool:
        """Whether the end of the stop was seen, so that nothing has to wait for it."""
        return self._was_down or self._has_stop_ended

    def end(self) -> None:
        """Forget this restart, because it is over."""
        self._forget("")

    def _may_still_stop(self, cutover: Cutover) -> bool:
        """Return whether the stop may still end; a reboot since the order has ended it."""
        if cutover.stop_ordered is None or self.has_stop_ended:
            return False
        return 0 <= self._clock() - cutover.stop_ordered < self._patience

    def _is_to_be_started(self, sight: Sight, *, is_open: bool) -> bool:
        if self._started is None:
            return True
        is_due = self._clock() - self._started >= _AGAIN
        is_last = not is_open and not self._is_start_lasting
        return sight is Sight.GONE and (is_due or is_last)
