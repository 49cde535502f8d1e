"""The threads that fetch frames, seen from the event loop.

Almost all that they do is without the interpreter's lock: TLS, zstd, and, in the accelerator,
digests and files.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from initpuller.cancellation import in_thread, made_in_thread
from initpuller.workers.frame_worker import FrameWorker
from shared.cancellation import to_its_end
from shared.program.mallopt import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from initpuller.volume.staging.blocks import Unpacked
    from initpuller.workers.frame_worker import Assignment, Order

T = TypeVar("T")

THREAD = "frame"
"""Name of all threads that fetch a frame."""
_PATIENCE = 5.0
"""Seconds that an interrupted thread gets to end: it may wait for a name server."""


class Worker:
    """Has one frame at a time fetched in a thread; see :class:`FrameWorker`."""

    def __init__(self) -> None:
        self._frames: FrameWorker | None = None

    async def assign(self, assignment: Assignment) -> None:
        """Start with a snapshot; raise StorageError if its staging cannot be opened."""
        self.end()
        self._frames = await made_in_thread(partial(FrameWorker, assignment), FrameWorker.close)

    async def bring(self, order: Order) -> Unpacked:
        """See :meth:`FrameWorker.bring`. After a cancellation, no thread touches staging."""
        frames = self._frames
        if frames is None:
            raise ValueError("an order without an assignment")
        bringing = _start(partial(frames.bring, order))
        try:
            return await asyncio.shield(bringing)
        except asyncio.CancelledError:
            self._frames = None
            await to_its_end(_stop(frames, bringing))
            raise

    def end(self) -> None:
        """Close what is open; no frame is under way."""
        if self._frames is not None:
            self._frames.close()
            self._frames = None


@contextmanager
def start_workers(count: int) -> Iterator[list[Worker]]:
    """Yield workers that end together."""
    keep_freed_memory()
    workers = [Worker() for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.end()


def _start(work: Callable[[], T]) -> asyncio.Future[T]:
    """Do ``work`` in a thread of its own, whose end the process does not wait for when it exits.

    A new thread takes a hundredth of the time of a frame.
    """
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the event loop raises it
            done.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), name=THREAD, daemon=True).start()
    return asyncio.wrap_future(done)


async def _stop(frames: FrameWorker, bringing: asyncio.Future[Unpacked]) -> None:
    """End a thread that fetches a frame, or leave it where it can do nothing but fail."""

    def end(_: object) -> None:
        bringing.exception()  # nobody else asks for it, and asyncio would log that
        frames.close()

    frames.interrupt()
    bringing.add_done_callback(end)
    await asyncio.wait({bringing}, timeout=_PATIENCE)
    if not bringing.done():
        await in_thread(frames.wait_until_idle)
