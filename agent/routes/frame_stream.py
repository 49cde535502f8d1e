"""Transmission of frames to possibly slow clients, in memory that does not grow with clients."""

from __future__ import annotations

import asyncio
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
            ConnectionError: the client has disconnected.
            Stopping: the agent is stopping.
            PlexodusError, OSError: a frame cannot be built; see :meth:`Representation.make`.
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
                    # Wait without a turn or a frame. A client that has everything may be gone, so
                    # nothing is waited for behind the last slice.
                    await request.writer.drain()
                    position, stop, writing = await self._send_some(
                        response, archive, number, position, stop
                    )
                    await writing
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
    ) -> tuple[int, int, asyncio.Task[None]]:
        """Send as much of one frame as the client receives in a turn.

        Return the new position in the frame, the one at which the part ends, in bytes, and the last
        write, which may still wait for the client. Slices are copies, because a view in the
        transport's buffer would keep the whole frame in memory.
        """
        size = self._outflow.slice_size
        await self._outflow.admit(size if stop is None else min(size, stop - position))
        async with self._turns:
            frame = memoryview((await self._frames.get(archive, number)).data)
            end = frame.nbytes if stop is None else stop
            loop = asyncio.get_running_loop()
            turn_ends = loop.time() + _TURN
            while True:
                piece = bytes(frame[position : min(position + size, end)])
                position += len(piece)
                self._outflow.sent += len(piece)
                writing = await _write(response, piece, turn_ends - loop.time())
                is_turn_over = not writing.done() or loop.time() >= turn_ends
                # A limited rate waits for the next slice without holding a frame.
                if position >= end or is_turn_over or self._outflow.rate is not None:
                    return position, end, writing


async def _write(response: web.StreamResponse, piece: bytes, seconds: float) -> asyncio.Task[None]:
    """Hand ``piece`` to the transport, and wait for the client for at most ``seconds``.

    Return the write, which may still wait for the client. A timeout must not cancel it: a canceled
    wait makes aiohttp fail the next one, which disconnects a slow client.

    Raises:
        ConnectionError: the client has disconnected.
    """
    writing = asyncio.create_task(response.write(piece))
    try:
        await asyncio.wait({writing}, timeout=seconds)
    except asyncio.CancelledError:
        writing.cancel()
        raise
    if writing.done():
        writing.result()
    return writing
