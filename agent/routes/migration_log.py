"""``/v1/log``: the migration log, to which the puller and its sidecar add events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from agent.server.bodies import read_body
from shared.wire import protocol

if TYPE_CHECKING:
    from agent.host.migration_log import MigrationLog
    from agent.server.rate_limit import Outflow


def migration_log_routes(log: MigrationLog, outflow: Outflow) -> list[web.RouteDef]:
    """Return the routes: all of the log, as text or JSON lines, and a new event of a puller."""

    async def read(request: web.Request) -> web.StreamResponse:
        as_json = protocol.LOG_LINES_TYPE in request.headers.get(hdrs.ACCEPT, "")
        kind = protocol.LOG_LINES_TYPE if as_json else "text/plain; charset=utf-8"
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: kind, hdrs.VARY: hdrs.ACCEPT})
        await response.prepare(request)
        piece, offset = await asyncio.to_thread(log.read, 0, as_json=as_json)
        while piece and request.method != hdrs.METH_HEAD:
            await outflow.send(response, piece)
            piece, offset = await asyncio.to_thread(log.read, offset, as_json=as_json)
        await response.write_eof()
        return response

    async def tell(request: web.Request) -> web.Response:
        told = await read_body(request, protocol.PullerEvent)
        about = f"Puller {request.remote}: {told.about}"
        await asyncio.to_thread(log.write, told.event, about)
        return web.Response(status=204)

    return [web.get(protocol.LOG, read), web.post(protocol.LOG, tell)]
