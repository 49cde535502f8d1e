"""Answers that take long: while a worker thread is busy, the client is told so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from aiohttp import HttpVersion11

from shared import protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aiohttp import web

T = TypeVar("T")

_INTERVAL = 5.0
_PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"


async def patiently(request: web.Request, work: Coroutine[None, None, T]) -> T:
    """The result of ``work``; until it is there, ``102 Processing`` every five seconds.

    Interim answers (RFC 2518 section 10.1, RFC 9110 section 15.2) are how a client that watches
    for stalls tells a long scan from a dead agent. Only who says that it prefers them (RFC 7240)
    gets any: busybox' wget and Python's http.client take them for the answer, and Go's client
    gives up after a few. When the client goes, the work is left to end.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_look_at)
    prefers = ",".join(request.headers.getall(protocol.PREFER, []))
    is_told = request.version >= HttpVersion11 and protocol.PROCESSING in prefers
    while True:
        done, _ = await asyncio.wait({task}, timeout=_INTERVAL)
        if done:
            return task.result()
        if is_told:
            await request.writer.write(_PROCESSING)
            request.writer.output_size = 0  # as aiohttp does for 100


def _look_at(task: asyncio.Task[T]) -> None:
    """Its failure is no news to the log when the client that waited for it has gone."""
    if not task.cancelled():
        task.exception()
