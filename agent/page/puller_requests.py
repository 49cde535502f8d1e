"""Notes when a puller has last asked for something, so that its silence can be shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from shared.wire import protocol

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from agent.source.activity import Activity

_ROUTES = (protocol.SNAPSHOTS, protocol.CUTOVER, protocol.LIBRARY, protocol.TARGET_CHECKS)
"""What only pullers use, and whoever does by hand what a puller does."""


def note_pullers(activity: Activity) -> Middleware:
    """Return the middleware that notes in ``activity`` when a puller was last heard of."""

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        adds_line = request.path == protocol.LOG and request.method == hdrs.METH_POST
        if adds_line or request.path.startswith(_ROUTES):
            activity.heard = time.monotonic()
        return await handler(request)

    return note
