"""``/v1/snapshots/{id}/frames/{n}``: one frame, built from the source files on request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from agent.frames.blocks import find_block
from agent.frames.builder import build_frame
from agent.frames.encoder import encode
from agent.server.conditions import is_known
from shared.digest import digest_field
from shared.frames.codec import SUFFIX_PATTERN, Encoding
from shared.frames.pieces import changed_pieces
from shared.wire import protocol

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from agent.frames.blocks import Block
    from agent.server.rate_limit import Outflow
    from agent.snapshots.store import SnapshotStore
    from agent.source.activity import Activity
    from shared.digest import Buffer


class FrameEndpoints:
    """Frames, built a few at a time in the threads of ``workers``, and counted in ``activity``."""

    def __init__(
        self, store: SnapshotStore, workers: Executor, outflow: Outflow, activity: Activity
    ) -> None:
        self._store = store
        self._workers = workers
        self._outflow = outflow
        self._activity = activity

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this module."""
        suffix = f"{{suffix:{SUFFIX_PATTERN}}}"
        route = protocol.frame_path("{snapshot:[^/]+}", "{number:\\d{1,12}}", suffix)
        return [web.get(route, self.frame)]

    async def frame(self, request: web.Request) -> web.StreamResponse:
        """Send one frame; its entity tag is the digest of its files' content, in any encoding."""
        encoding = Encoding(request.match_info["suffix"])
        loop = asyncio.get_running_loop()
        headers, data = await loop.run_in_executor(self._workers, self._make, request, encoding)
        response = web.StreamResponse(headers=headers)
        response.content_length = len(data)
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            await self._outflow.send(response, data)
        await response.write_eof()
        return response

    def _make(self, request: web.Request, encoding: Encoding) -> tuple[dict[str, str], Buffer]:
        """Return headers and body, or raise HTTPNotModified if the client has the frame."""
        snapshot = self._store.open(request.match_info["snapshot"])
        number = int(request.match_info["number"])
        try:
            self._activity.frame(snapshot.about, number)
            held = request.headers.get(protocol.HELD_PIECES)
            block = None if held is None else find_block(snapshot, number)
            if held is not None and block is not None:
                found = _pieces(request, block, held)
                if found is not None:
                    bitmap, pieces = found
                    headers = _headers(block.known.tag.hex(), encoding)
                    return headers | {protocol.CHANGED_PIECES: bitmap}, encode(pieces, encoding)
            tar, digest = build_frame(snapshot, number)
        except IndexError:
            raise web.HTTPNotFound(reason="there is no frame of this number") from None
        tag = digest.hex()
        if is_known(request, tag):
            raise web.HTTPNotModified(headers=_headers(tag))
        headers = _headers(tag, encoding)
        if request.headers.get(protocol.WANT_CONTENT_DIGEST) == protocol.NO_DIGEST:
            return headers, encode(tar, encoding)
        frame = snapshot.representation(encoding).encode(number, tar)
        headers["Content-Digest"] = digest_field(frame.digest)
        return headers, frame.data


def _pieces(request: web.Request, block: Block, held: str) -> tuple[str, bytes] | None:
    """Return bitmap and content of what the client lacks of a block; None to send all of it.

    Raises:
        HTTPNotModified: The client has the block.
        HTTPPreconditionRequired: It has not, and did not say which pieces it has.
    """
    known = block.known
    tag = known.tag.hex()
    if is_known(request, tag):
        raise web.HTTPNotModified(headers=_headers(tag))
    if held == protocol.LATER:
        raise web.HTTPPreconditionRequired(reason="the block has changed: send its pieces")
    found = changed_pieces(block.content, known.short, held)
    return found if found is not None and found[1] else None


def _headers(tag: str, encoding: Encoding | None = None) -> dict[str, str]:
    headers: dict[str, str] = {hdrs.ETAG: f'"{tag}"', hdrs.CACHE_CONTROL: "no-store"}
    if encoding is not None:
        headers[hdrs.CONTENT_TYPE] = encoding.media_type
    return headers
