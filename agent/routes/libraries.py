"""``/v1/library``: results of the checks of the source."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from aiohttp import web

from agent.server.bodies import json_response
from agent.server.interim_responses import patiently
from agent.source.activity import Phase
from shared.plex.sqlite_check import DatabaseCheck
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.source.activity import Activity

    Look: TypeAlias = Callable[[DatabaseCheck], protocol.ServerReport]


def library_routes(everything: Look, server: Look, activity: Activity) -> list[web.RouteDef]:
    """Return the routes. ``everything`` runs all checks, ``server`` those without a tree walk."""
    one_at_a_time = asyncio.Lock()

    async def look(check: Look, depth: DatabaseCheck) -> protocol.ServerReport:
        async with one_at_a_time:
            with activity.phase(Phase.INSPECTING):
                return await asyncio.to_thread(check, depth)

    async def report(request: web.Request, check: Look) -> web.Response:
        try:
            depth = DatabaseCheck(request.query.get(protocol.DATABASE_CHECK, DatabaseCheck.FULL))
        except ValueError:
            choices = ", ".join(each.value for each in DatabaseCheck)
            reason = f"{protocol.DATABASE_CHECK} must be one of {choices}"
            raise web.HTTPBadRequest(reason=reason) from None
        ids = request.query.get(protocol.IDENTIFY_CHECKS, "false")
        if ids not in ("true", "false"):
            raise web.HTTPBadRequest(reason=f"{protocol.IDENTIFY_CHECKS} must be true or false")
        found = await patiently(request, look(check, depth))
        return json_response(found if ids == "true" else _without_ids(found))

    return [
        web.get(protocol.LIBRARY, partial(report, check=everything)),
        web.get(protocol.LIBRARY_SERVER, partial(report, check=server)),
    ]


def _without_ids(report: protocol.ServerReport) -> dict[str, object]:
    """Return the report as pullers before 0.2 accept it."""
    fields: dict[str, Any] = msgspec.to_builtins(report)
    for check in fields["checks"]:
        del check["id"]
    return fields
