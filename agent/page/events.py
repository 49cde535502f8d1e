"""``/v1/events``: the state of the move and the lines of its log, as server-sent events.

The format is that of the HTML Standard, section 9.2. An event ``move`` has the whole state, and
comes when something has changed. An event ``log`` has a line of the migration log. Its number is
the event's id, so a client that was away gets what it has missed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from aiohttp import hdrs, web
from aiohttp_sse import EventSourceResponse, sse_response

from agent.server.problems import SENT
from agent.server.stopping import STOPPING
from shared.wire import protocol

if TYPE_CHECKING:
    from agent.page.observer import Observer

_SECONDS = 1.0
"""Between two looks."""
_PING_SECONDS = 15.0
_SEND_SECONDS = 60.0
"""Time after which a client that takes nothing is disconnected."""


def event_routes(observer: Observer) -> list[web.RouteDef]:
    """Return the route."""

    async def events(request: web.Request) -> web.StreamResponse:
        async with sse_response(
            request, allow_all_methods=True, ping_interval=_PING_SECONDS, send_timeout=_SEND_SECONDS
        ) as stream:
            stream[SENT] = True
            if request.method != hdrs.METH_HEAD:
                await _follow(request, stream, observer)
        return stream

    return [web.get(protocol.EVENTS, events)]


async def _follow(request: web.Request, stream: EventSourceResponse, observer: Observer) -> None:
    """Send what changes, until the client disconnects or the agent stops."""
    stopping = request.app[STOPPING]
    sent, lines = b"", _lines_sent(request)
    while stream.is_connected() and not stopping.is_set():
        seen = await observer.look()
        for number, event in enumerate(seen.log[lines:], lines + 1):
            await stream.send(msgspec.json.encode(event).decode(), id=str(number), event="log")
        lines = max(lines, len(seen.log))
        state = msgspec.json.encode(seen.move)
        if state != sent:
            await stream.send(state.decode(), event="move")
            sent = state
        try:
            async with asyncio.timeout(_SECONDS):
                await stopping.wait()
        except TimeoutError:
            continue


def _lines_sent(request: web.Request) -> int:
    last = request.headers.get("Last-Event-ID", "")
    return int(last) if last.isascii() and last.isdigit() else 0
