"""Files in asynchronous code, opened so that a cancellation loses none of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, Protocol

import aiofiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class AsyncBinaryFile(Protocol):
    """The methods of aiofiles' binary files that are used here."""

    def fileno(self) -> int:
        """Return the descriptor."""

    async def seek(self, offset: int, /) -> int:
        """Go to ``offset`` bytes from the start."""

    async def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes."""

    async def write(self, data: bytes, /) -> int:
        """Write all of ``data``."""

    async def close(self) -> None:
        """Close the file."""


@asynccontextmanager
async def opened(path: str, mode: Literal["rb", "wb"]) -> AsyncIterator[AsyncBinaryFile]:
    """Open the file ``path``; close it at the end.

    A thread opens it. If the caller is canceled meanwhile, this waits for the thread. Otherwise the
    file would stay open, and a new one would appear after the caller's own cleanup.

    Raises:
        OSError: The file cannot be opened or closed.
    """
    opening = asyncio.ensure_future(_open(path, mode))
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        if opening.exception() is None:
            await opening.result().close()
        raise
    try:
        yield file
    finally:
        await asyncio.shield(asyncio.ensure_future(file.close()))


async def _open(path: str, mode: Literal["rb", "wb"]) -> AsyncBinaryFile:
    return await aiofiles.open(path, mode)
