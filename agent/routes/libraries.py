"""``/v1/library``: what a preflight finds out about the source."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from aiohttp import web

from agent.server.bodies import json_response
from agent.server.interim_responses import patiently
from agent.server.problems import problem
from agent.source.activity import Phase
from shared.plex.sqlite_check import DatabaseCheck
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.source.activity import Activity

    Look: TypeAlias = Callable[[DatabaseCheck], protocol.ServerReport]


class LibraryEndpoints:
    """Looks at the library for whoever asks, for one at a time.

    Args:
        everything: looks at all of it; blocks for as long as a scan, and as databases are large.
        server: looks at all but the tree.
        activity: is told meanwhile.
    """

    def __init__(
        self,
        everything: Look,
        server: Look,
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
        return await self._report(request, self._everything)

    async def server(self, request: web.Request) -> web.Response:
        """The same but for what a walk would find."""
        return await self._report(request, self._server)

    async def _report(self, request: web.Request, look: Look) -> web.Response:
        asked = request.query.get(protocol.DATABASE_CHECK, DatabaseCheck.FULL.value)
        try:
            depth = DatabaseCheck(asked)
        except ValueError:
            choices = ", ".join(each.value for each in DatabaseCheck)
            return problem(400, f"{protocol.DATABASE_CHECK} must be one of {choices}")
        return json_response(await patiently(request, self._look(lambda: look(depth))))

    async def _look(self, look: Callable[[], protocol.ServerReport]) -> protocol.ServerReport:
        async with self._one_at_a_time:
            with self._activity.phase(Phase.INSPECTING):
                return await asyncio.to_thread(look)
