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


class PlexLibraryEndpoints:
    """Redirects clients to a snapshot.

    Args:
        scans: makes new snapshots.
        handouts: the snapshot that each client was redirected to.
    """

    def __init__(self, scans: Scans, handouts: Handouts) -> None:
        self._scans = scans
        self._handouts = handouts

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this module."""
        return [
            web.get(protocol.LIBRARY_ARCHIVE, self.archive),
            web.get(protocol.LIBRARY_SUMS, self.sums),
        ]

    async def archive(self, request: web.Request) -> web.Response:
        """Redirect to an archive of the current library or, with ``Range``, to the earlier one.

        Raises:
            SnapshotGone: If the earlier one no longer exists. Parts of two archives do not fit.
        """
        snapshot = await self._snapshot(request, is_back=hdrs.RANGE in request.headers)
        return _to(protocol.archive_path(snapshot, Encoding.GZIP.value))

    async def sums(self, request: web.Request) -> web.Response:
        """Redirect to the digests of the archive that this client was redirected to.

        Raises:
            SnapshotGone: If that archive no longer exists.
        """
        return _to(protocol.sums_path(await self._snapshot(request, is_back=True)))

    async def _snapshot(self, request: web.Request, *, is_back: bool) -> str:
        client = request.remote or ""
        if is_back and (known := await asyncio.to_thread(self._handouts.of, client)):
            return known
        wanted = protocol.SnapshotRequest("cold", list(NEVER))
        about = await patiently(request, self._scans.scan(wanted))
        await asyncio.to_thread(self._handouts.remember, client, about.id)
        return about.id


def _to(path: str) -> web.Response:
    """Redirect with 307, so that HEAD stays HEAD and nothing is cached."""
    return web.Response(
        status=307,
        text=f"{path}\n",
        headers={hdrs.LOCATION: path, hdrs.CACHE_CONTROL: "no-store"},
    )
