"""``/v1/events``: the state of the move and the lines of its log, as server-sent events.

The format is that of the HTML Standard, section 9.2. An event ``move`` has the whole state, and
comes when something has changed. An event ``log`` has a line of the migration log. Its id is the
byte where the next line begins, so a client that was away gets what it has missed. An event
``still`` says that nothing has changed: a browser does not notice a network that is cut.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
from aiohttp import hdrs, web
from aiohttp_sse import EventSourceResponse, sse_response

from agent.page.observer import events_in
from agent.server.problems import SENT
from agent.server.stopping import STOPPING
from shared.wire import protocol

if TYPE_CHECKING:
    from agent.host.migration_log import MigrationLog
    from agent.page.observer import Observer

_SECONDS = 1.0
"""Between two looks."""
_STILL_SECONDS = 10.0
_PING_SECONDS = 3600.0
"""Of a comment that the library sends; the event above is more frequent."""
_SEND_SECONDS = 60.0
"""Time after which a client that takes nothing is disconnected."""
_MOST = 16
"""Streams at once. They hold connections that a puller at the same address may need."""
_LONGEST_ID = 18
WITHOUT_LOG = "without-log"
"""Query of a client that wants no lines of the log."""


def event_routes(observer: Observer, log: MigrationLog) -> list[web.RouteDef]:
    """Return the route."""
    open_streams: set[EventSourceResponse] = set()

    async def events(request: web.Request) -> web.StreamResponse:
        if len(open_streams) >= _MOST:
            raise web.HTTPServiceUnavailable(reason=f"{_MOST} clients follow the move already")
        async with sse_response(
            request, allow_all_methods=True, ping_interval=_PING_SECONDS, send_timeout=_SEND_SECONDS
        ) as stream:
            stream[SENT] = True
            if request.method != hdrs.METH_HEAD:
                open_streams.add(stream)
                try:
                    await _follow(request, stream, observer, log)
                finally:
                    open_streams.discard(stream)
        return stream

    return [web.get(protocol.EVENTS, events)]


async def _follow(
    request: web.Request, stream: EventSourceResponse, observer: Observer, log: MigrationLog
) -> None:
    """Send what changes, until the client disconnects or the agent stops."""
    stopping = request.app[STOPPING]
    sent, said, offset = b"", time.monotonic(), _begin(request, log)
    while stream.is_connected() and not stopping.is_set():
        if offset is not None:
            offset = await _send_lines(stream, log, offset)
        state = msgspec.json.encode((await observer.look()).move)
        if state != sent:
            await stream.send(state.decode(), event="move")
            sent, said = state, time.monotonic()
        elif time.monotonic() - said > _STILL_SECONDS:
            await stream.send("", event="still")
            said = time.monotonic()
        try:
            async with asyncio.timeout(_SECONDS):
                await stopping.wait()
        except TimeoutError:
            continue


async def _send_lines(stream: EventSourceResponse, log: MigrationLog, offset: int) -> int:
    """Send the lines from byte ``offset`` on, and return where the next one begins."""
    while True:
        piece, after = await asyncio.to_thread(log.read, offset, as_json=True)
        if not piece:
            return 0 if log.size() < offset else offset
        for line in piece.splitlines(keepends=True):
            offset += len(line)
            if events_in(line):
                await stream.send(line.decode().strip(), id=str(offset), event="log")
        offset = after
        await asyncio.sleep(0)  # sending does not wait while the socket takes everything


def _begin(request: web.Request, log: MigrationLog) -> int | None:
    """Return the first byte of the log that the client lacks; None if it wants no lines."""
    if WITHOUT_LOG in request.query:
        return None
    last = request.headers.get("Last-Event-ID", "")
    known = last.isascii() and last.isdigit() and len(last) <= _LONGEST_ID
    offset = int(last) if known else 0
    return offset if offset <= log.size() else 0
