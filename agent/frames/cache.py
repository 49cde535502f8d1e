"""The cache of encoded frames. Worker threads build each frame once for all concurrent requests."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from concurrent.futures import Executor

    from agent.frames.archive_encoding import EncodedFrame, Representation

_Key = tuple[str, int]

KEPT = 16
"""Number of cached frames, of at most about 4 MiB: two for each of eight segments."""


class FrameCache:
    """The builder and cache of the frames of all archives.

    All methods must be called from one event loop. They raise the errors of
    :meth:`Representation.make`.

    Args:
        workers: the threads that build frames.
        ahead: the most threads that may work ahead for one client.
    """

    def __init__(self, workers: Executor, ahead: int) -> None:
        self._workers = workers
        self._ahead = ahead
        self._making: dict[_Key, asyncio.Future[EncodedFrame]] = {}
        self._wanted: set[_Key] = set()
        """Frames under construction that are cached as soon as they are complete."""
        self._kept: OrderedDict[_Key, EncodedFrame] = OrderedDict()
        self.hits = 0
        """Number of requests that were answered from the cache."""
        self.made = 0
        """Number of frames that were built."""

    async def get(self, archive: Representation, number: int) -> EncodedFrame:
        """Return frame ``number`` and cache it for the next request."""
        key = (archive.tag, number)
        frame = self._kept.get(key)
        if frame is None:
            self._wanted.add(key)
            frame = await asyncio.shield(self._make(archive, number))
        else:
            self.hits += 1
        self._keep(key, frame)
        await self._hash(archive, number, frame)
        return frame

    def prepare(self, archive: Representation, number: int) -> None:
        """Start to build frame ``number``, which a client will soon request."""
        key = (archive.tag, number)
        if key not in self._kept:
            self._wanted.add(key)
            _ = self._make(archive, number)

    async def in_passing(
        self, archive: Representation, numbers: Iterable[int]
    ) -> AsyncIterator[int]:
        """Build the frames ``numbers``, a few ahead, without caching; yield each number built."""
        ahead: deque[tuple[int, asyncio.Future[EncodedFrame]]] = deque()
        for number in numbers:
            ahead.append((number, self._make(archive, number)))
            if len(ahead) > self._ahead:
                yield await self._passed(archive, *ahead.popleft())
        while ahead:
            yield await self._passed(archive, *ahead.popleft())

    async def _passed(
        self, archive: Representation, number: int, making: asyncio.Future[EncodedFrame]
    ) -> int:
        await self._hash(archive, number, await asyncio.shield(making))
        return number

    async def _hash(self, archive: Representation, number: int, frame: EncodedFrame) -> None:
        """Add the frame to the archive's digest, if it is the next one, in a worker thread."""
        if number == archive.index.hashed and archive.index.digest is None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(
                self._workers, archive.index.add_to_whole, number, frame.data
            )

    def _make(self, archive: Representation, number: int) -> asyncio.Future[EncodedFrame]:
        key = (archive.tag, number)
        making = self._making.get(key)
        if making is None:
            self.made += 1
            loop = asyncio.get_running_loop()
            making = loop.run_in_executor(self._workers, archive.make, number)
            self._making[key] = making
            making.add_done_callback(lambda made: self._made(key, made))
        return making

    def _made(self, key: _Key, made: asyncio.Future[EncodedFrame]) -> None:
        del self._making[key]
        is_wanted = key in self._wanted
        self._wanted.discard(key)
        is_failed = made.cancelled() or made.exception() is not None  # retrieved, so not logged
        if is_wanted and not is_failed:  # cache it now, or the next request would build it again
            self._keep(key, made.result())

    def _keep(self, key: _Key, frame: EncodedFrame) -> None:
        self._kept[key] = frame
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
