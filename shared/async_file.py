"""Files in asynchronous code, opened so that a cancellation loses none of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, cast

import aiofiles

from shared.cancellation import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiofiles.threadpool.binary import AsyncBufferedIOBase


@asynccontextmanager
async def opened(path: str, mode: Literal["rb", "wb"]) -> AsyncIterator[AsyncBufferedIOBase]:
    """Open the file ``path``; close it at the end. Raise OSError if either fails.

    A thread does both. However often the caller is canceled meanwhile, this waits for the thread.
    Otherwise the file would stay open, and a new one would appear after the caller's own cleanup.
    """
    made: list[AsyncBufferedIOBase] = []

    async def make() -> None:
        made.append(cast("AsyncBufferedIOBase", await aiofiles.open(path, mode)))

    try:
        await to_its_end(make())
        yield made[0]
    finally:
        for file in made:
            await to_its_end(file.close())
