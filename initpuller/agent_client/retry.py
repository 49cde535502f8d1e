"""Trying again: what is Temporary, a few times, with growing pauses; nothing else."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, TypeVar

import structlog

from shared.errors import CutoverEnded, FrameDamaged, FrameDamagedTwice, SnapshotGone, Temporary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0)
"""Seconds before each new try of the same request: an agent may be away for half a minute."""
IDLE_SECONDS = 30.0
"""Without a single byte for so long, the agent counts as stalled; it says 102 every 5 s."""
_log = structlog.get_logger("puller")


class Retrier:
    """Runs actions, again where that may help.

    Args:
        pauses: seconds before each new try; when they are used up, the last error stands.
    """

    def __init__(self, pauses: tuple[float, ...] = PAUSES) -> None:
        self._pauses = pauses

    async def run(self, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """The result of ``action``, tried again on :class:`shared.errors.Temporary`.

        Raises:
            FrameDamagedTwice: it was damaged two times.
            SnapshotGone, CutoverEnded: at once; whoever asked for these knows what to do.
            PlexodusError: the first permanent error, or the last temporary one.
        """
        damaged = False
        for pause in self._pauses:
            try:
                return await action()
            except (SnapshotGone, CutoverEnded):
                raise  # the same request never helps: a new scan, or stop, does
            except Temporary as error:
                if isinstance(error, FrameDamaged):
                    if damaged:
                        raise FrameDamagedTwice(f"{what} arrived damaged twice") from error
                    damaged = True
                _log.warning("trying again", what=what, reason=str(error), seconds=pause)
            # Spread, so that several requests that failed together do not come back together.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        return await action()
