"""The permission to publish: an answer of the agent that is a moment old when the library appears.

An older one permits nothing. Since it was given, this process may have been frozen, the volume
slow, or the agent away. Meanwhile an administrator may have undone the move, or a boot of the VM
may have started Plex.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from initpuller.cancellation import cancel
from shared.errors import AgentUnreachable
from shared.timestamps import boottime

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from initpuller.volume.records.pull_record import PullRecord

FRESH_SECONDS = 2.0
"""An older answer does not permit a publication."""
ASKS = 3
"""Questions to the agent before its answers count as too slow."""
_GLANCE = 0.5


class OutOfDate(AgentUnreachable):
    """The agent's last answer is too old for a publication: it has to be asked again."""


class Permission:
    """Whether what the record plans may get its name now. An answer about another move does not."""

    def __init__(self, record: PullRecord) -> None:
        self._record = record
        self._permitted: tuple[str, str] | None = None
        self._asked = 0.0

    def give(self, asked: float = math.inf) -> None:
        """Note an answer to a request that was sent at ``asked``, or one that does not age."""
        self._permitted, self._asked = self._planned(), asked

    def is_valid(self) -> bool:
        """Return whether exactly this publication is permitted, by an answer that is fresh."""
        return self._permitted == self._planned() and boottime() - self._asked < FRESH_SECONDS

    def require(self) -> None:
        """Raise OutOfDate unless it is valid: right before the rename that publishes."""
        if not self.is_valid():
            raise OutOfDate(
                "nothing was published, because the agent's answer was more than"
                f" {FRESH_SECONDS:.0f} s old by then, each time",
                hint="Run again when the volume, the network and both machines have less to do.",
            )

    def _planned(self) -> tuple[str, str]:
        state = self._record.current
        return state.cutover, state.snapshot.id


async def without_a_break(question: Coroutine[Any, Any, None]) -> bool:
    """Await a question that takes long; return whether this process ran all the time meanwhile.

    One that was frozen reads an answer of unknown age.
    """
    asking, seen, longest = asyncio.ensure_future(question), boottime(), 0.0
    try:
        while not asking.done():
            await asyncio.wait({asking}, timeout=_GLANCE)
            now = boottime()
            seen, longest = now, max(longest, now - seen)
        asking.result()
    finally:
        await cancel(asking)
    return longest < FRESH_SECONDS
