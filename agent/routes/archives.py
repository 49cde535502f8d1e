"""``/v1/snapshots/{id}/archive.tar``, ``.tar.gz``, ``.tar.zst``: the library for any HTTP client.

An archive is built from the source files while it is sent, with the same bytes each time, and is
never on disk. If a response needs a length or a digest that is unknown, the frames are first
encoded without being sent. The index records the results.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from aiohttp import HttpVersion11, hdrs, web

from agent.routes.frame_stream import FrameStream
from agent.server import conditions
from agent.server.interim_responses import patiently
from agent.server.problems import SENT
from agent.server.stopping import Stopping
from shared.digest import digest_field, sha256
from shared.errors import PlexodusError
from shared.frames.codec import SUFFIX_PATTERN, Encoding
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.frames.archive_encoding import EncodedFrame, Representation
    from agent.frames.cache import FrameCache
    from agent.frames.index import Stretch
    from agent.server.rate_limit import Outflow
    from agent.snapshots.store import SnapshotStore

_log = structlog.get_logger("agent")


class ArchiveEndpoints:
    """The archives of all snapshots."""

    def __init__(self, store: SnapshotStore, frames: FrameCache, outflow: Outflow) -> None:
        self._store = store
        self._frames = frames
        self._stream = FrameStream(frames, outflow)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this file."""
        route = protocol.archive_path("{snapshot:[^/]+}", f"{{suffix:{SUFFIX_PATTERN}}}")
        return [web.get(route, self.archive)]

    async def archive(self, request: web.Request) -> web.StreamResponse:
        """Send the archive or one range of it (RFC 9110). Conditions are checked before ranges."""
        encoding = Encoding(request.match_info["suffix"])
        archive = await asyncio.to_thread(self._open, request.match_info["snapshot"], encoding)
        response = conditions.begin(request, archive.tag)
        if archive.failed is not None:  # report the failure now, not in the middle of the body
            await self._frames.get(archive, archive.failed)
        asked = conditions.asked_range(request, archive.tag)
        await self._learn(request, archive, needs_size=asked is not None)
        size = archive.index.size
        part = None if size is None else conditions.select(response, asked, size)
        if part is None:
            response.enable_chunked_encoding()
        response.content_type = archive.encoding.media_type
        if archive.index.digest is not None:
            response.headers["Repr-Digest"] = digest_field(archive.index.digest)
        if request.method != hdrs.METH_HEAD:
            await self._send(request, response, archive, part)
        else:
            await response.prepare(request)
        return response

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        archive: Representation,
        part: range | None,
    ) -> None:
        """Send the whole body, or abort the connection so that the client notices the failure."""
        stretch = archive.index.stretch(part)
        # A failure of the first frame can still be sent as a problem.
        first = await self._frames.get(archive, stretch.first)
        if part is not None and (digest := _content_digest(archive, part, stretch, first)):
            response.headers["Content-Digest"] = digest_field(digest)
        del first
        await response.prepare(request)
        try:
            await self._stream.send(request, response, archive, stretch)
            response[SENT] = True
        except ConnectionError:
            return  # the client has disconnected
        except Exception as error:  # noqa: BLE001 - a problem response would become part of the body
            if not isinstance(error, Stopping):
                is_known = isinstance(error, (PlexodusError, OSError))
                about = {"path": request.path, "frame": archive.failed, "reason": str(error)}
                _log.error("archive aborted", **about, exc_info=not is_known)
            if request.transport is not None:
                request.transport.abort()

    async def _learn(
        self, request: web.Request, archive: Representation, *, needs_size: bool
    ) -> None:
        """Encode the frames whose length or digest is needed before the response can begin."""
        needs_size = (
            needs_size
            or request.method == hdrs.METH_HEAD
            or request.version < HttpVersion11  # cannot distinguish an abort from the end
        )
        needs_digest = conditions.wants_digest(request)

        def lacking() -> Iterable[int]:
            if needs_digest and archive.index.digest is None:
                return range(archive.index.hashed, len(archive))
            return archive.index.missing() if needs_size else ()

        async def encode() -> None:
            async with archive.learning:
                async for _ in self._frames.in_passing(archive, lacking()):
                    if request.transport is None:
                        return

        await patiently(request, encode())
        if request.transport is None:
            raise ConnectionResetError

    def _open(self, snapshot: str, encoding: Encoding) -> Representation:
        found = self._store.open(snapshot)
        if found.about.kind != "cold" or found.about.base:
            raise web.HTTPNotFound(reason="only a cold snapshot that is no delta is an archive")
        return found.representation(encoding)


def _content_digest(
    archive: Representation, part: range, stretch: Stretch, first: EncodedFrame
) -> bytes | None:
    """Return the digest of the body; None if it is unknown before sending (RFC 9530 section 2)."""
    if len(part) == archive.index.size:
        return archive.index.digest
    if stretch.first == stretch.last:
        return sha256(memoryview(first.data)[stretch.skip : stretch.stop])
    return None
