"""``/v1/snapshots``: scan, description, manifest, digests, and the check for changes."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from agent.server import conditions
from agent.server.bodies import json_response, read_body
from agent.server.interim_responses import patiently
from agent.snapshots import whole_tree
from agent.source.activity import Phase
from shared.async_file import opened
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.server.rate_limit import Outflow
    from agent.snapshots.cold_source import ColdSource
    from agent.snapshots.scan_queue import Scans
    from agent.snapshots.store import OpenSnapshot, SnapshotStore
    from agent.source.activity import Activity

_PIECE = 256 * 1024
"""Bytes of a file that are read and sent at once."""


class SnapshotEndpoints:
    """The routes of snapshots; ``activity`` notes what the whole tree is read for."""

    def __init__(
        self,
        store: SnapshotStore,
        scans: Scans,
        outflow: Outflow,
        activity: Activity,
        cold: ColdSource,
    ) -> None:
        self._store = store
        self._scans = scans
        self._outflow = outflow
        self._activity = activity
        self._cold = cold
        self._one_at_a_time = asyncio.Lock()
        """Held while the whole tree is read or checked: other requests need threads, too."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this module."""
        name = "{snapshot:[^/]+}"
        return [
            web.post(protocol.SNAPSHOTS, self.create),
            web.get(protocol.snapshot_path(name), self.describe),
            web.get(protocol.manifest_path(name), self.manifest),
            web.get(protocol.omitted_path(name), self.omitted),
            web.get(protocol.sums_path(name), self.sums),
            web.post(protocol.check_path(name), self.check),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Scan, or join the scan that is under way."""
        wanted = await read_body(request, protocol.SnapshotRequest)
        began = time.monotonic()
        about = await patiently(request, self._scans.scan(wanted))
        self._activity.scanned(about, began)
        location = protocol.snapshot_path(about.id)
        return json_response(about, status=201, headers={"Location": location})

    async def describe(self, request: web.Request) -> web.Response:
        """Return the snapshot as the response to its creation had it."""
        snapshot = await self._open(request)
        return json_response(snapshot.about)

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        """Send all entries as JSON lines, compressed with zstd."""
        snapshot = await self._open(request)
        return await self._send_file(request, snapshot.manifest.path)

    async def omitted(self, request: web.Request) -> web.StreamResponse:
        """Send all that the scan left out as JSON lines, compressed with zstd."""
        snapshot = await self._open(request)
        return await self._send_file(request, snapshot.omitted_path)

    async def _open(self, request: web.Request) -> OpenSnapshot:
        return await asyncio.to_thread(self._store.open, request.match_info["snapshot"])

    async def _send_file(self, request: web.Request, path: str) -> web.StreamResponse:
        """Send the file, or the range of it that ``request`` asks for.

        It may be replaced by another one meanwhile, but is never changed in place. aiohttp's
        FileResponse would ignore the rate limit, and send a modification date.
        """
        async with opened(path, "rb") as file:
            about = os.fstat(file.fileno())
            tag = f"{about.st_mtime_ns:x}-{about.st_size:x}"
            response = conditions.begin(request, tag)
            asked = conditions.asked_range(request, tag)
            part = conditions.select(response, asked, about.st_size)
            response.content_type = protocol.MANIFEST_TYPE
            await response.prepare(request)
            if request.method == hdrs.METH_HEAD:
                return response
            await file.seek(part.start)
            for start in range(0, len(part), _PIECE):
                piece = await file.read(min(_PIECE, len(part) - start))
                await self._outflow.send(response, piece)
            await response.write_eof()
            return response

    async def sums(self, request: web.Request) -> web.StreamResponse:
        """Send ``SHA256SUMS`` of all files; read the files that no frame has needed yet."""
        snapshot = await self._open(request)
        await patiently(request, self._alone(Phase.HASHING, _complete_digests, snapshot))
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:
            return response
        pieces = whole_tree.sums(snapshot)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            await self._outflow.send(response, piece)
        await response.write_eof()
        return response

    async def check(self, request: web.Request) -> web.Response:
        """Answer 204 if the library is as it was scanned, 409 if it is not."""
        snapshot = await self._open(request)
        await patiently(request, self._check(snapshot))
        return web.Response(status=204)

    async def _check(self, snapshot: OpenSnapshot) -> None:
        await self._cold.refuse_running(snapshot)  # before, because it may wait for an hour
        await self._alone(Phase.CHECKING, self._cold.check, snapshot)

    async def _alone(
        self,
        phase: Phase,
        work: Callable[[OpenSnapshot], Awaitable[None]],
        snapshot: OpenSnapshot,
    ) -> None:
        async with self._one_at_a_time:
            with self._activity.phase(phase):
                await work(snapshot)


async def _complete_digests(snapshot: OpenSnapshot) -> None:
    await asyncio.to_thread(whole_tree.complete_digests, snapshot)
