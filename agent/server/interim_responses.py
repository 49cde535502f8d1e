"""Interim responses: they show a waiting client that the agent works on its request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeVar

from aiohttp import HttpVersion11

from agent.server.stopping import STOPPING, Stopping
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aiohttp import web

T = TypeVar("T")

_INTERVAL = 5.0
_PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"


async def patiently(request: web.Request, work: Coroutine[None, None, T]) -> T:
    """Return the result of ``work``, and send ``102 Processing`` every five seconds until then.

    By interim responses (RFC 2518 section 10.1, RFC 9110 section 15.2) a client that watches for
    stalls can tell a long scan from a dead agent. Only clients that ask for them (RFC 7240) get
    any: busybox's wget and Python's http.client take them for the response, and Go's client gives
    up after a few. If the client disconnects, the work still runs to its end.

    Raises:
        Stopping: the agent stops before the work has ended.
    """
    task = asyncio.ensure_future(work)
    # Retrieve the failure, so that asyncio logs none if the client has disconnected.
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    stopping = asyncio.ensure_future(request.app[STOPPING].wait())
    prefers = ",".join(request.headers.getall(protocol.PREFER, []))
    is_told = request.version >= HttpVersion11 and protocol.PROCESSING in prefers
    waited: set[asyncio.Future[T] | asyncio.Future[Literal[True]]] = {task, stopping}
    try:
        while True:
            await asyncio.wait(waited, timeout=_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if stopping.done():
                raise Stopping
            if is_told:
                await request.writer.write(_PROCESSING)
                request.writer.output_size = 0  # as aiohttp does for 100
    finally:
        stopping.cancel()
