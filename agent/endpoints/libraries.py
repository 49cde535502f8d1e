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
        everything: looks at all of it; blocks for as long as a scan, and as databases are large.
        server: looks at all but the tree.
        activity: is told meanwhile.
    """

    def __init__(
        self,
        everything: Callable[[], protocol.LibraryReport],
        server: Callable[[], protocol.ServerReport],
        activity: Activity,
    ) -> None:
        self._everything = everything
        self._server = server
        self._activity = activity
        self._one_at_a_time = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """The routes of this file."""
        return [
            web.get(protocol.LIBRARY, self.library),
            web.get(protocol.LIBRARY_SERVER, self.server),
        ]

    async def library(self, request: web.Request) -> web.Response:
        """The report, as the library is now."""
        return _json(await patiently(request, self._look(self._everything)))

    async def server(self, request: web.Request) -> web.Response:
        """The same but for what a walk would find."""
        return _json(await patiently(request, self._look(self._server)))

    async def _look(self, look: Callable[[], protocol.ServerReport]) -> protocol.ServerReport:
        async with self._one_at_a_time:
            with self._activity.phase(Phase.INSPECTING):
                return await asyncio.to_thread(look)


def _json(report: protocol.ServerReport) -> web.Response:
    return web.Response(body=msgspec.json.encode(report), content_type="application/json")
