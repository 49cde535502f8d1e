"""``/v1/probe``: random bytes, with which a puller measures the rate of the network."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from shared.wire import protocol

if TYPE_CHECKING:
    from agent.server.rate_limit import Outflow

_PIECE = 256 * 1024
_PIECES = 1024


def probe_routes(outflow: Outflow) -> list[web.RouteDef]:
    """Return the route, which sends 256 MiB; clients disconnect when they have enough."""

    async def probe(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/octet-stream"})
        response.content_length = _PIECES * _PIECE
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            piece = os.urandom(_PIECE)  # the same one each time, because TLS does not compress
            for _ in range(_PIECES):
                await outflow.send(response, piece)
        await response.write_eof()
        return response

    return [web.get(protocol.PROBE, probe)]
