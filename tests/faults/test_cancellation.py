"""A cancelled task leaves no thread behind that still writes to the volume."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from initpuller.cancellation import cancel, in_thread, made_in_thread, regardless
from initpuller.pull.passes import Pass

SECONDS = 0.05


class Writer:
    """A thread's work: it writes until it may end."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.is_writing = self.is_closed = False

    def write(self) -> Writer:
        """Write."""
        self.is_writing = True
        self.has_begun.set()
        self.may_end.wait()
        self.is_writing = False
        return self

    def close(self) -> None:
        """Close it."""
        self.is_closed = True


async def cancelled(task: asyncio.Task[Writer], writer: Writer) -> None:
    """Cancel the task twice, and require that it ends after its thread, and not before."""
    await asyncio.to_thread(writer.has_begun.wait)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(SECONDS)
    assert not task.done()
    writer.may_end.set()
    with suppress(asyncio.CancelledError):
        await task
    assert not writer.is_writing


async def test_thread_of_a_cancelled_task() -> None:
    """Its end is waited for: the lock of the volume is held so long."""
    writer = Writer()
    task = asyncio.create_task(in_thread(writer.write))
    await cancelled(task, writer)
    assert task.cancelled()


async def test_result_that_nobody_waits_for_is_closed() -> None:
    """Staging that is opened too late leaks no descriptors."""
    writer = Writer()
    task = asyncio.create_task(made_in_thread(writer.write, Writer.close))
    await cancelled(task, writer)
    assert task.cancelled()
    assert writer.is_closed
    kept = Writer()
    kept.may_end.set()
    assert await made_in_thread(kept.write, Writer.close) is kept
    assert not kept.is_closed


async def test_thread_whose_work_fails() -> None:
    """Its error arrives."""
    missing = Path("missing")
    with pytest.raises(FileNotFoundError):
        await in_thread(missing.read_bytes)


async def test_publication_that_is_cancelled() -> None:
    """It is done, and nothing says that it was not."""
    writer = Writer()
    task = asyncio.create_task(regardless(in_thread(writer.write)))
    await cancelled(task, writer)
    assert task.result() is writer
    assert task.cancelling() == 0


async def test_cancelled_while_others_are_cancelled() -> None:
    """Both kinds of work end, however often somebody is in a hurry."""
    writer = Writer()
    inner = asyncio.create_task(in_thread(writer.write))
    never = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.to_thread(writer.has_begun.wait)
    task = asyncio.create_task(cancel(inner, never, None))
    await asyncio.sleep(SECONDS)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(SECONDS)
    assert not task.done()
    writer.may_end.set()
    with suppress(asyncio.CancelledError):
        await task
    assert not writer.is_writing
    assert never.cancelled()


async def test_pass_that_is_cancelled_twice() -> None:
    """Its staging is closed, although the request for digests takes a while to end."""
    staging: Any = Writer()
    unused: Any = None

    async def ask() -> None:
        """Wait for digests; the connection takes a while to close."""
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(3 * SECONDS)

    async def work() -> None:
        """Begin a pass that does not end by itself."""
        sums = asyncio.create_task(ask())
        async with Pass(staging, unused, unused, sums):
            await asyncio.sleep(3600)

    task = asyncio.create_task(work())
    for _ in range(3):
        await asyncio.sleep(SECONDS)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert staging.is_closed
