"""``/v1/library``: results of the checks of the source."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
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
    """Checks the library, for one request at a time.

    Args:
        everything: runs all checks. Blocks as long as a scan and a check of the databases take.
        server: runs the checks that need no walk of the tree.
        activity: records that the library is being checked.
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
        """Return the routes of this file."""
        return [
            web.get(protocol.LIBRARY, self.library),
            web.get(protocol.LIBRARY_SERVER, self.server),
        ]

    async def library(self, request: web.Request) -> web.Response:
        """Return the results of all checks."""
        return await self._report(request, self._everything)

    async def server(self, request: web.Request) -> web.Response:
        """Return the results of the checks that need no walk of the tree."""
        return await self._report(request, self._server)

    async def _report(self, request: web.Request, look: Look) -> web.Response:
        asked = request.query.get(protocol.DATABASE_CHECK, DatabaseCheck.FULL.value)
        try:
            depth = DatabaseCheck(asked)
        except ValueError:
            choices = ", ".join(each.value for each in DatabaseCheck)
            return problem(400, f"{protocol.DATABASE_CHECK} must be one of {choices}")
        ids = request.query.get(protocol.IDENTIFY_CHECKS, "false")
        if ids not in ("true", "false"):
            return problem(400, f"{protocol.IDENTIFY_CHECKS} must be true or false")
        report = await patiently(request, self._look(lambda: look(depth)))
        return json_response(report if ids == "true" else _without_ids(report))

    async def _look(self, look: Callable[[], protocol.ServerReport]) -> protocol.ServerReport:
        async with self._one_at_a_time:
            with self._activity.phase(Phase.INSPECTING):
                return await asyncio.to_thread(look)


def _without_ids(report: protocol.ServerReport) -> dict[str, object]:
    """Return the report as pullers before 0.2 accept it."""
    fields: dict[str, Any] = msgspec.to_builtins(report)
    for check in fields["checks"]:
        del check["id"]
    return fields
