"""``/healthz`` and ``/readyz``: polled by anyone, they say nothing secret."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from agent.endpoints.problems import problem
from agent.source.library import why_unreadable
from shared import protocol

if TYPE_CHECKING:
    from agent.source.library import LibrarySource

OPEN_ROUTES = frozenset({protocol.HEALTHZ, protocol.READYZ})
"""What is answered without a token."""


def health_routes(state: str, source: LibrarySource) -> list[web.RouteDef]:
    """Alive; and ready: library readable, state folder writable."""

    async def healthz(_request: web.Request) -> web.Response:
        return _well(protocol.Health("ok"))

    async def readyz(_request: web.Request) -> web.Response:
        reason = await asyncio.to_thread(_why_not_ready, state, source)
        if reason is not None:
            return problem(503, reason)
        return _well(protocol.Health("ready"))

    return [web.get(protocol.HEALTHZ, healthz), web.get(protocol.READYZ, readyz)]


def _well(body: protocol.Health) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _why_not_ready(state: str, source: LibrarySource) -> str | None:
    if why_unreadable(source) is not None:
        return "the library cannot be read"
    if not os.access(state, os.W_OK):
        return "the state folder cannot be written"
    return None
