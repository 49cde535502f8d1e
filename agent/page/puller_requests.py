"""Notes the requests of pullers, so that their silence can be shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

from shared.wire import protocol

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from agent.source.activity import Activity

_ROUTES = (protocol.SNAPSHOTS, protocol.CUTOVER, protocol.LIBRARY, protocol.TARGET_CHECKS)
"""What only pullers use, and whoever does by hand what a puller does; sidecars use the log."""


def note_pullers(activity: Activity) -> Middleware:
    """Return the middleware that notes in ``activity`` what a puller asks, and when it ended."""

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(_ROUTES):
            return await handler(request)
        activity.asking += 1
        try:
            return await handler(request)
        finally:
            activity.asking -= 1
            activity.heard = time.monotonic()

    return note
