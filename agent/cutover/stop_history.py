"""Results of earlier stops of Plex, and whether it may be stopped again. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shared.checks import duration
from shared.errors import CutoverRefused
from shared.program.exit_codes import ExitCode
from shared.wire.protocol import StopFailure

if TYPE_CHECKING:
    from shared.wire.protocol import CutoverRequest

_FREE = 3
"""Stops in a row without a pause between them. One pull may need so many."""
_FIRST_PAUSE = 60.0
_LONGEST_PAUSE = 3600.0
_LONGEST = 1000
"""Characters of an error that are remembered."""
_FORCE = "To have it stopped all the same, add --retry-failed to pull (PLEXODUS_RETRY_FAILED=1)."


class StopHistory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last stops, for all pullers and volumes. A commit, or an undo by hand, resets it."""

    stops: int = 0
    """Number of stops in a row, without a commit."""
    last: float = 0.0
    """Time of the last order to stop, in seconds of CLOCK_BOOTTIME."""
    failure: StopFailure | None = None
    """Failure of the last one, if a retry would meet it again."""
    is_stop_refused: bool = False
    """Whether the failure is that Plex did not stop. A restart of the agent may change that."""

    def pause(self, now: float) -> float:
        """Return the seconds until the next stop: doubled each time, from the last stop or boot."""
        if self.stops < _FREE:
            return 0.0
        wanted = min(_FIRST_PAUSE * 2.0 ** min(self.stops - _FREE, 10), _LONGEST_PAUSE)
        passed = now - self.last if now >= self.last else now
        return max(0.0, wanted - passed)

    def after_stop(self, now: float) -> StopHistory:
        """Return the history with one more stop, whose result is unknown."""
        return StopHistory(self.stops + 1, now)

    def after_failure(self, failure: StopFailure) -> StopHistory:
        """Return the history with the failure of the last stop."""
        return StopHistory(self.stops, self.last, failure)

    def after_refusal(self, error: CutoverRefused, request: CutoverRequest, at: str) -> StopHistory:
        """Return the history with the failure of the last stop, which is that Plex did not stop."""
        what, hint = error.what[:_LONGEST], error.hint[:_LONGEST]
        failure = StopFailure(ExitCode.CUTOVER, what, hint, at, request.circumstances)
        return StopHistory(self.stops, self.last, failure, is_stop_refused=True)


def check_repeated(history: StopHistory, request: CutoverRequest, now: float) -> None:
    """Refuse a stop of Plex that cannot help.

    Raises:
        CutoverRefused: If the last one failed and nothing has changed, or if there were too many.
    """
    if request.retry:
        return
    failure = history.failure
    if failure and request.circumstances and failure.circumstances == request.circumstances:
        raise CutoverRefused(
            f"Plex is not stopped again: {failure.what} ({failure.at}, exit code {failure.code}),"
            " and nothing has changed since",
            hint=f"{failure.hint} {_FORCE}".strip(),
        )
    if pause := history.pause(now):
        raise CutoverRefused(
            f"Plex was stopped {history.stops} times in a row without a complete move; it is not"
            f" stopped again for {duration(pause)}",
            hint=f"'plexodus-agent log' on the VM says what went wrong. {_FORCE}",
        )
