"""Transmission of frames to possibly slow clients, in memory that does not grow with clients."""

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
"""Number of frames that are prepared while one is sent, if few clients share the cache."""
_TURN = 1.0
"""Seconds after which a client releases its frame, so that others have a turn."""


class FrameStream:
    """The transmission of parts of archives to clients.

    A client holds a frame for one turn. After that, only the slice in transmission stays in memory.
    Once the client has received it, the client gets its frame again, from the cache if possible.

    Args:
        frames: builder and cache of frames.
        outflow: sends slices, within the rate limit.
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
            ConnectionError: If the client has disconnected.
            Stopping: If the agent is stopping.
            PlexodusError, OSError: If a frame cannot be built; see :meth:`Representation.make`.
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
                    raise Stopping  # the client can resume after this frame
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
        """Send as much of one frame as the client receives in a turn.

        Slices are copies, because a view in the transport's buffer would keep the whole frame in
        memory.

        Returns:
            The new position in the frame, and the position at which the part ends, in bytes.
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
                        position += len(
                            piece
                        )  # the transport takes it at once, even if the wait below is cancelled
                        await response.write(piece)
                        self._outflow.sent += len(piece)
                        if self._outflow.rate is not None:
                            break  # wait for the next slice without holding a frame
                        await asyncio.sleep(0)  # let other tasks run, and notice a disconnect
            return position, end
