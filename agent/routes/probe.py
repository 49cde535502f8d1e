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


class ProbeEndpoints:
    """Sends 256 MiB that cannot be compressed; the client closes the connection at any time.

    Args:
        outflow: sends the body like any other, so that a limited rate is measured.
    """

    def __init__(self, outflow: Outflow) -> None:
        self._outflow = outflow

    def routes(self) -> list[web.RouteDef]:
        """Return the route of this module."""
        return [web.get(protocol.PROBE, self.probe)]

    async def probe(self, request: web.Request) -> web.StreamResponse:
        """Send the same random piece repeatedly: TLS does not compress."""
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/octet-stream"})
        response.content_length = _PIECES * _PIECE
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            piece = os.urandom(_PIECE)
            for _ in range(_PIECES):
                await self._outflow.send(response, piece)
        await response.write_eof()
        return response
