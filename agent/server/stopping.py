"""Responses to requests that arrive while the agent is stopping."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

STOPPING = web.AppKey("stopping", asyncio.Event)
"""Set when the agent stops: requests under way are finished, new ones are refused."""
_RETRY_SECONDS = "5"


class Stopping(web.HTTPServiceUnavailable):
    """The agent is stopping before the request could be answered."""

    def __init__(self) -> None:
        super().__init__(reason="the agent is stopping")


@web.middleware
async def refuse_when_stopping(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer new requests with 503; clients retry when the agent runs again."""
    if request.app[STOPPING].is_set():
        raise Stopping
    return await handler(request)


async def close_when_stopping(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Mark a response as the last one of its connection while the agent is stopping."""
    if isinstance(request, web.Request) and request.app[STOPPING].is_set():
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"
        response.headers[hdrs.RETRY_AFTER] = _RETRY_SECONDS
