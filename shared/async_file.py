"""Files in asynchronous code, opened so that a cancellation loses none of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, cast

import aiofiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiofiles.threadpool.binary import AsyncBufferedIOBase


@asynccontextmanager
async def opened(path: str, mode: Literal["rb", "wb"]) -> AsyncIterator[AsyncBufferedIOBase]:
    """Open the file ``path``; close it at the end. Raise OSError if either fails.

    A thread opens it. If the caller is canceled meanwhile, this waits for the thread. Otherwise the
    file would stay open, and a new one would appear after the caller's own cleanup.
    """
    opening = asyncio.ensure_future(aiofiles.open(path, mode))
    try:
        file = cast("AsyncBufferedIOBase", await asyncio.shield(opening))
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        if opening.exception() is None:
            await opening.result().close()
        raise
    try:
        yield file
    finally:
        await asyncio.shield(asyncio.ensure_future(file.close()))
