"""``/v1/snapshots/{id}/frames/{n}``: one frame, made from the source files when it is asked for."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from aiohttp import web

from agent.source.framebuilder import build_frame
from shared import protocol
from shared.codec import Encoding, encode
from shared.digest import content_digest, sha256

if TYPE_CHECKING:
    from agent.source.snapshots import SnapshotStore
    from shared.digest import Buffer

_ANY = "*"
_TYPES = {
    Encoding.TAR: "application/x-tar",
    Encoding.GZIP: "application/gzip",
    Encoding.ZSTD: "application/zstd",
}


class FrameEndpoints:
    """Frames, made a few at a time in worker threads.

    Args:
        store: the snapshots.
    """

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._workers = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="frame")

    def routes(self) -> list[web.RouteDef]:
        """The routes of this file."""
        route = protocol.frame_path("{snapshot:[^/]+}", "{number:\\d{1,12}}", "{suffix:[a-z.]+}")
        return [web.get(route, self.frame)]

    async def frame(self, request: web.Request) -> web.Response:
        """One frame: its entity-tag is the SHA-256 of its tar bytes, whatever the encoding."""
        try:
            encoding = Encoding(request.match_info["suffix"])
        except ValueError:
            raise web.HTTPNotFound from None
        wanted = request.if_none_match or ()
        known = frozenset(tag.value for tag in wanted)
        digest, body = await asyncio.get_running_loop().run_in_executor(
            self._workers,
            self._make,
            request.match_info["snapshot"],
            int(request.match_info["number"]),
            encoding,
            known,
        )
        headers = {"ETag": f'"{digest}"', "Cache-Control": "no-store"}
        if body is None:
            return web.Response(status=304, headers=headers)
        encoded, headers["Content-Digest"] = body
        headers["Content-Type"] = _TYPES[encoding]
        return web.Response(body=encoded, headers=headers)

    def _make(
        self, snapshot: str, number: int, encoding: Encoding, known: frozenset[str]
    ) -> tuple[str, tuple[Buffer, str] | None]:
        """The frame's digest, and its bytes with theirs unless the client has it."""
        try:
            tar = build_frame(self._store.open(snapshot), number)
        except IndexError:
            raise web.HTTPNotFound(reason="there is no frame of this number") from None
        digest = sha256(tar).hex()
        if digest in known or _ANY in known:
            return digest, None
        encoded = encode(tar, encoding)
        return digest, (encoded, content_digest(encoded))
