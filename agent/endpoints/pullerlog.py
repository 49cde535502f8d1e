"""``/v1/log``: what the puller and its sidecar have to tell whoever reads the agent's log."""

from __future__ import annotations

import structlog
from aiohttp import web

from agent.endpoints.bodies import read_body
from shared import protocol
from shared.errors import printable

_log = structlog.get_logger("agent")


class PullerLogEndpoints:
    """Writes what pullers tell into the agent's own log."""

    def routes(self) -> list[web.RouteDef]:
        """The route of this file."""
        return [web.post(protocol.LOG, self.tell)]

    async def tell(self, request: web.Request) -> web.Response:
        """One event, under the puller's own name for it."""
        told = await read_body(request, protocol.PullerEvent)
        _log.info(
            "the puller reports", what=told.event, about=printable(told.about), peer=request.remote
        )
        return web.Response(status=204)
