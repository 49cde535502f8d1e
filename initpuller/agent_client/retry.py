"""The retry policy: only Temporary errors, a limited number of times, after growing pauses.

Every request to the agent that is retried follows it, in the event loop (:class:`Retrier`) and in
threads (:class:`Attempts` alone). Two loops are something else. The renewal of the lease repeats on
a schedule of its own. Reports to the cluster are repeated for as long as the pull takes.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, TypeVar

import structlog

from shared.errors import (
    CutoverEnded,
    FrameDamaged,
    FrameDamagedTwice,
    PlexodusError,
    SnapshotGone,
    Temporary,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0)
"""Seconds before each retry of one request: an agent may be away for half a minute."""
IDLE_SECONDS = 30.0
"""Seconds without a byte after which the agent counts as stalled; it sends 102 every 5 s."""
_SPREAD = 0.5, 1.5
"""A pause is multiplied by a number in this range, so that requests that failed together are not
repeated together."""
_log = structlog.get_logger("puller")


class Attempts:
    """The attempts of one request, ``what``, with one retry for each of ``pauses``, in seconds."""

    def __init__(self, what: str, pauses: tuple[float, ...]) -> None:
        self._what = what
        self._pauses = iter(pauses)
        self.damaged = 0
        """Number of attempts that brought a damaged frame."""

    def pause_after(self, error: PlexodusError) -> float | None:
        """Return the seconds to wait before the request is repeated, or None to give up."""
        # The same request never helps against these two: a new scan, or a new stop, does.
        if not isinstance(error, Temporary) or isinstance(error, SnapshotGone | CutoverEnded):
            return None
        self.damaged += isinstance(error, FrameDamaged)
        pause = next(self._pauses, None)
        if pause is None or self.damaged > 1:
            return None
        _log.warning("trying again", what=self._what, reason=str(error), seconds=pause)
        return pause * random.uniform(*_SPREAD)  # noqa: S311 - no secret


class Retrier:
    """Runs requests in the event loop, and retries them after ``pauses``, in seconds."""

    def __init__(self, pauses: tuple[float, ...] = PAUSES) -> None:
        self._pauses = pauses

    async def run(self, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``action``, which is retried on :class:`shared.errors.Temporary`.

        Raises:
            FrameDamagedTwice: the frame arrived damaged two times.
            SnapshotGone, CutoverEnded: at once; the caller knows how to continue.
            PlexodusError: the first permanent error, or the last temporary one.
        """
        attempts = Attempts(what, self._pauses)
        while True:
            try:
                return await action()
            except PlexodusError as error:
                pause = attempts.pause_after(error)
                if pause is None and attempts.damaged > 1:
                    raise FrameDamagedTwice(f"{what} arrived damaged twice") from error
                if pause is None:
                    raise
            await asyncio.sleep(pause)
