"""Bytes sent in each second of the last two minutes."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from agent.server.rate_limit import Outflow

SECONDS = 120
_RECENT = 5


class Rates:
    """Counts what leaves the agent by ``outflow``, while the application runs."""

    def __init__(self, outflow: Outflow) -> None:
        self._outflow = outflow
        self._sent = outflow.sent
        self.seconds: deque[int] = deque([0] * SECONDS, SECONDS)
        """The latest is the last."""

    @property
    def recent(self) -> float:
        """Bytes a second, in the last few seconds."""
        return sum(list(self.seconds)[-_RECENT:]) / _RECENT

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """Count until the application ends; a context of its cleanup."""
        counting = asyncio.create_task(self._count())
        yield
        counting.cancel()
        with suppress(asyncio.CancelledError):
            await counting

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(1)
            before, self._sent = self._sent, self._outflow.sent
            self.seconds.append(self._sent - before)
