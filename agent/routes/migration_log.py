"""``/v1/log``: the migration log, to which the puller and its sidecar add events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from aiohttp import hdrs, web

from agent.server.bodies import read_body
from shared.wire import protocol

if TYPE_CHECKING:
    from agent.server.rate_limit import Outflow


class Story(Protocol):
    """The part of the migration log that this module uses."""

    def read(self, offset: int, *, as_json: bool) -> tuple[bytes, int]:
        """Return complete lines from ``offset``, and the offset after them."""

    def write(self, event: str, about: str) -> None:
        """Append a line."""


class MigrationLogEndpoints:
    """Sends the log, and adds the events of pullers.

    Args:
        log: the log.
        outflow: sends the body.
    """

    def __init__(self, log: Story, outflow: Outflow) -> None:
        self._log = log
        self._outflow = outflow

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this module."""
        return [web.get(protocol.LOG, self.read), web.post(protocol.LOG, self.tell)]

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Send all of it as text, or as JSON lines if the client accepts them."""
        as_json = protocol.LOG_LINES_TYPE in request.headers.get(hdrs.ACCEPT, "")
        kind = protocol.LOG_LINES_TYPE if as_json else "text/plain; charset=utf-8"
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: kind, hdrs.VARY: hdrs.ACCEPT})
        await response.prepare(request)
        piece, offset = await asyncio.to_thread(self._log.read, 0, as_json=as_json)
        while piece and request.method != hdrs.METH_HEAD:
            await self._outflow.send(response, piece)
            piece, offset = await asyncio.to_thread(self._log.read, offset, as_json=as_json)
        await response.write_eof()
        return response

    async def tell(self, request: web.Request) -> web.Response:
        """Add one event, under the name that the puller gives it."""
        told = await read_body(request, protocol.PullerEvent)
        about = f"Puller {request.remote}: {told.about}"
        await asyncio.to_thread(self._log.write, told.event, about)
        return web.Response(status=204)
