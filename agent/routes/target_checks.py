"""``/v1/checks``: the puller's checks of the volume, kept for those who look at the move."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from agent.server.bodies import read_body
from shared.wire import protocol

if TYPE_CHECKING:
    from agent.host.check_reports import CheckReports


def target_check_routes(reports: CheckReports) -> list[web.RouteDef]:
    """Return the route, by which a puller replaces results of an earlier run."""

    async def replace(request: web.Request) -> web.Response:
        body = await read_body(request, protocol.TargetChecks)
        await asyncio.to_thread(reports.write, "target", body.checks, are_all=body.are_all)
        return web.Response(status=204)

    return [web.put(protocol.TARGET_CHECKS, replace)]
