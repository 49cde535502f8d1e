"""What every request is told once the agent was asked to end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

STOPPING = web.AppKey("stopping", asyncio.Event)
"""Set when the agent ends: what is in hand is finished, nothing is begun."""
_RETRY_SECONDS = "5"


class Stopping(web.HTTPServiceUnavailable):
    """What was asked for would take longer than the agent has."""

    def __init__(self) -> None:
        super().__init__(reason="the agent is stopping")


@web.middleware
async def refuse_when_stopping(request: web.Request, handler: Handler) -> web.StreamResponse:
    """503 to what comes now; clients look for the next agent in a while."""
    if request.app[STOPPING].is_set():
        raise Stopping
    return await handler(request)


async def close_when_stopping(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """An answer that begins now is the last one of its connection, and says so."""
    if isinstance(request, web.Request) and request.app[STOPPING].is_set():
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"
        response.headers[hdrs.RETRY_AFTER] = _RETRY_SECONDS
