"""Encoded frames, made in worker threads, each once however many ask for it at the same time."""

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
"""Frames kept after they were made, of about 4 MiB at the most: two for each of eight segments."""


class FrameCache:
    """Makes the frames of all archives.

    Its methods belong to one event loop. Errors are those of :meth:`Representation.make`.

    Args:
        workers: the threads that make them.
        ahead: how many of them may work for one client.
    """

    def __init__(self, workers: Executor, ahead: int) -> None:
        self._workers = workers
        self._ahead = ahead
        self._making: dict[_Key, asyncio.Future[EncodedFrame]] = {}
        self._wanted: set[_Key] = set()
        """Of those that are being made: what is kept at once when it is there."""
        self._kept: OrderedDict[_Key, EncodedFrame] = OrderedDict()
        self.hits = 0
        """Times that a frame was kept which somebody wanted."""
        self.made = 0
        """Frames, for whatever reason."""

    async def get(self, archive: Representation, number: int) -> EncodedFrame:
        """Frame ``number``, which is then kept for the next who asks."""
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
        """Begin with frame ``number``: somebody will soon ask for it."""
        key = (archive.tag, number)
        if key not in self._kept:
            self._wanted.add(key)
            _ = self._make(archive, number)

    async def in_passing(
        self, archive: Representation, numbers: Iterable[int]
    ) -> AsyncIterator[int]:
        """Make the frames ``numbers``, a few ahead, keeping none; yields each when it is done."""
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
        """Frames come here in the order of the archive; a thread hashes while others encode."""
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
        if made.cancelled() or made.exception() is not None:  # looked at, or it would be logged
            return
        if is_wanted:  # before anybody else runs, who would find it neither here nor there
            self._keep(key, made.result())

    def _keep(self, key: _Key, frame: EncodedFrame) -> None:
        self._kept[key] = frame
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
