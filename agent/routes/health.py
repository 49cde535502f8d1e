"""``/healthz`` and ``/readyz``: anyone may ask, so they contain no secret."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from aiohttp import web

from agent.host.sandbox import WITHOUT_SANDBOX, is_without_sandbox
from agent.server.bodies import json_response
from agent.source.library import why_unreadable
from shared.errors import PlexodusError
from shared.wire import protocol

if TYPE_CHECKING:
    from agent.source.library import CurrentLibrary

_STALE = 1.0
"""Seconds after which readiness is checked again."""


def health_routes(state: str, library: CurrentLibrary) -> list[web.RouteDef]:
    """Return the routes: alive, and ready (library readable, state folder writable, sandboxed)."""

    async def healthz(_request: web.Request) -> web.Response:
        return json_response(protocol.Health("ok"))

    sandbox = WITHOUT_SANDBOX if is_without_sandbox() else None  # it never changes
    looked: list[tuple[float, str | None]] = []
    looking = asyncio.Lock()

    async def readyz(_request: web.Request) -> web.Response:
        async with looking:  # unauthenticated: any number of requests costs one check a second
            now = asyncio.get_running_loop().time()
            if not looked or now - looked[0][0] > _STALE:
                looked[:] = [(now, await asyncio.to_thread(_why_not_ready, state, library))]
        reason = looked[0][1] or sandbox
        if reason is not None:
            raise web.HTTPServiceUnavailable(reason=reason)
        return json_response(protocol.Health("ready"))

    return [web.get(protocol.HEALTHZ, healthz), web.get(protocol.READYZ, readyz)]


def _why_not_ready(state: str, library: CurrentLibrary) -> str | None:
    if why_unreadable(library.last) is not None:
        try:
            library.locate()  # it may have been moved
        except PlexodusError:
            return "the library cannot be read"
    if not os.access(state, os.W_OK):
        return "the state folder cannot be written"
    return None
