"""The rate limit: all bodies leave the agent in slices, no faster than the settings allow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

    from shared.digest import Buffer

_SLICE = 256 * 1024
_SLICES_A_SECOND = 50
"""The least number of slices a second: a limited rate is even over much less than a second."""
_LATE = 0.1
"""Seconds of the rate that may be made up for after the event loop was busy."""


class Outflow:
    """The outflow of the whole agent, which clients share slice by slice."""

    def __init__(self, rate: float | None = None) -> None:
        self.rate = rate
        """Bytes per second, None for no limit; may be replaced at any time."""
        self.sent = 0
        """Bytes of bodies, before TLS."""
        self._next = 0.0
        """Time at which the next slice may be sent."""

    @property
    def slice_size(self) -> int:
        """Number of bytes that are sent at once."""
        if self.rate is None:
            return _SLICE
        return max(1, min(_SLICE, int(self.rate / _SLICES_A_SECOND)))

    async def admit(self, size: int) -> None:
        """Wait until ``size`` bytes may be sent by the caller."""
        if self.rate is None:
            return
        now = asyncio.get_running_loop().time()
        start = max(self._next, now - _LATE)
        self._next = start + size / self.rate
        if start > now:
            await asyncio.sleep(start - now)

    async def send(self, response: web.StreamResponse, data: Buffer) -> None:
        """Send ``data`` as a part of the body, or raise ConnectionError if the client has gone."""
        rest = memoryview(data)
        while rest:
            piece, rest = rest[: self.slice_size], rest[self.slice_size :]
            await self.admit(piece.nbytes)
            await response.write(piece)
            self.sent += piece.nbytes
