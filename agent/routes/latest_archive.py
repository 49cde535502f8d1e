"""``/plex-library.tar.gz``, an address that existing scripts use, and its ``/SHA256SUMS``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from agent.server.interim_responses import patiently
from shared.frames.codec import Encoding
from shared.plex.library import NEVER
from shared.wire import protocol

if TYPE_CHECKING:
    from agent.snapshots.client_snapshots import Handouts
    from agent.snapshots.scan_queue import Scans


def latest_archive_routes(scans: Scans, handouts: Handouts) -> list[web.RouteDef]:
    """Return the routes, which redirect a client to a snapshot that ``handouts`` remembers."""

    async def archive(request: web.Request) -> web.Response:
        # With a range, the earlier archive: parts of two archives do not fit.
        name = await snapshot(request, is_back=hdrs.RANGE in request.headers)
        return _redirect(protocol.archive_path(name, Encoding.GZIP.value))

    async def sums(request: web.Request) -> web.Response:
        return _redirect(protocol.sums_path(await snapshot(request, is_back=True)))

    async def snapshot(request: web.Request, *, is_back: bool) -> str:
        client = request.remote or ""
        if is_back and (known := await asyncio.to_thread(handouts.of, client)):
            return known
        wanted = protocol.SnapshotRequest("cold", list(NEVER))
        about = await patiently(request, scans.scan(wanted))
        await asyncio.to_thread(handouts.remember, client, about.id)
        return about.id

    return [web.get(protocol.LIBRARY_ARCHIVE, archive), web.get(protocol.LIBRARY_SUMS, sums)]


def _redirect(path: str) -> web.Response:
    """Redirect with 307, so that HEAD stays HEAD and nothing is cached."""
    return web.Response(status=307, text=f"{path}\n", headers={hdrs.LOCATION: path})
