"""Runs a walk in a thread of its own, some lines ahead of what is done with them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_BATCH = 64 * 1024
"""Bytes of lines that are handed over at once."""
_AHEAD = 8
"""Batches that are read ahead."""


def read_ahead(lines: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    """Yield all that ``lines`` yields, joined to batches of 64 KiB.

    No other thread may use ``lines``. It is closed when this iterator ends or is closed.
    """
    batches = _batches(lines)
    thread = ThreadPoolExecutor(1, "walk")
    pending = deque(thread.submit(next, batches, b"") for _ in range(_AHEAD))
    try:
        while batch := pending.popleft().result():
            pending.append(thread.submit(next, batches, b""))
            yield batch
    finally:
        thread.shutdown(cancel_futures=True)
        lines.close()


def _batches(lines: Iterator[bytes]) -> Iterator[bytes]:
    batch: list[bytes] = []
    size = 0
    for text in lines:
        if batch and size + len(text) > _BATCH:
            yield b"".join(batch)
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield b"".join(batch)
