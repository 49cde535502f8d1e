"""Sends frames to clients that may be slow, in memory that does not grow with their number."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.frames.cache import KEPT
from agent.server.stopping import STOPPING, Stopping

if TYPE_CHECKING:
    from aiohttp import web

    from agent.frames.archive_encoding import Representation
    from agent.frames.cache import FrameCache
    from agent.frames.index import Stretch
    from agent.server.rate_limit import Outflow

_AHEAD = 3
"""Frames that are prepared while one is sent, where few clients share the cache."""
_TURN = 1.0
"""Seconds after which a client lets its frame go, for others to have a turn."""


class FrameStream:
    """Sends what clients ask of archives.

    A client holds a frame for one turn. Then it is left with the slice that is under way; it gets
    its frame again, from the cache if it is still there, once it has taken that.

    Args:
        frames: where frames come from.
        outflow: how they leave.
    """

    def __init__(self, frames: FrameCache, outflow: Outflow) -> None:
        self._frames = frames
        self._outflow = outflow
        self._turns = asyncio.Semaphore(KEPT)
        self._clients = 0

    async def send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        archive: Representation,
        stretch: Stretch,
    ) -> None:
        """Send the bytes ``stretch`` of ``archive``.

        Raises:
            ConnectionError: the client has gone.
            Stopping: the agent ends.
            PlexodusError, OSError: a frame cannot be made, see :meth:`Representation.make`.
        """
        self._clients += 1
        try:
            for number in range(stretch.first, stretch.last + 1):
                ahead = min(_AHEAD, KEPT // self._clients - 1)
                for following in range(number + 1, min(number + ahead, stretch.last) + 1):
                    self._frames.prepare(archive, following)
                position = stretch.skip if number == stretch.first else 0
                stop = stretch.stop if number == stretch.last else None
                while position != stop:
                    position, stop = await self._send_some(
                        response, archive, number, position, stop
                    )
                    await request.writer.drain()  # holding neither a turn nor a frame
                if request.app[STOPPING].is_set():
                    raise Stopping  # with this frame the client has a place to go on from
        finally:
            self._clients -= 1

    async def _send_some(
        self,
        response: web.StreamResponse,
        archive: Representation,
        number: int,
        position: int,
        stop: int | None,
    ) -> tuple[int, int]:
        """Send as much of one frame as the client takes in a turn; returns how far, and how far to.

        Slices are copies: a view in the transport's buffer would keep its whole frame in memory.
        """
        size = self._outflow.slice_size
        await self._outflow.admit(size if stop is None else min(size, stop - position))
        async with self._turns:
            frame = memoryview((await self._frames.get(archive, number)).data)
            end = frame.nbytes if stop is None else stop
            with suppress(TimeoutError):
                async with asyncio.timeout(_TURN):
                    while position < end:
                        piece = bytes(frame[position : min(position + size, end)])
                        position += len(piece)  # it is in the transport's hands at once
                        await response.write(piece)
                        self._outflow.sent += len(piece)
                        if self._outflow.rate is not None:
                            break  # waits for the next slice without a frame in its hands
                        await asyncio.sleep(0)  # others' turn, and news of a hang-up
            return position, end
