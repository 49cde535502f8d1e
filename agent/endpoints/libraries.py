"""``/v1/library``: what a preflight finds out about the source."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from agent.endpoints.patience import patiently
from agent.source.activity import Phase
from shared import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.source.activity import Activity


class LibraryEndpoints:
    """Looks at the library for whoever asks, for one at a time.

    Args:
        preflight: looks; blocks for as long as a scan, and as the databases are large.
        activity: is told meanwhile.
    """

    def __init__(self, preflight: Callable[[], protocol.LibraryReport], activity: Activity) -> None:
        self._preflight = preflight
        self._activity = activity
        self._one_at_a_time = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """The route of this file."""
        return [web.get(protocol.LIBRARY, self.report)]

    async def report(self, request: web.Request) -> web.Response:
        """The report, as the library is now."""
        report = await patiently(request, self._look())
        return web.Response(body=msgspec.json.encode(report), content_type="application/json")

    async def _look(self) -> protocol.LibraryReport:
        async with self._one_at_a_time:
            with self._activity.phase(Phase.INSPECTING):
                return await asyncio.to_thread(self._preflight)
