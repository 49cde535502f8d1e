"""The worker processes that fetch frames, seen from the process that starts them."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from initpuller.volume.staging.blocks import Unpacked
from initpuller.workers.child import LENGTH_BYTES, end_with, framed, work
from shared.errors import Interrupted, PlexodusError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.workers.child import Assignment, Order

_log = structlog.get_logger("puller")
_STDERR = 2
_PATIENCE = 5.0
"""Seconds that a worker gets to finish its frame: the agent may have stalled."""


class Worker:
    """One process; see :mod:`initpuller.workers.child`.

    It is forked, because the start of an interpreter takes a tenth of a second of a core. So create
    it before there are threads: the child would have their locks, but not the threads.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _become_worker(theirs, parent)
        theirs.close()
        self._socket = ours
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._ended = False

    async def assign(self, assignment: Assignment) -> None:
        """Start with a snapshot; raise StorageError if its staging cannot be opened."""
        await self._ask(assignment)

    async def bring(self, order: Order) -> Unpacked:
        """See :meth:`initpuller.workers.child.FrameWorker.bring`."""
        unpacked = await self._ask(order)
        if not isinstance(unpacked, Unpacked):
            raise TypeError("a worker answered an order with something else than a result")
        return unpacked

    def end(self) -> None:
        """Kill the process. The frame that it was working on is discarded."""
        if self._ended:
            return
        self._ended = True
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        if self._streams is not None:
            self._streams[1].close()
        else:
            self._socket.close()

    async def _ask(self, request: object) -> object:
        """Return the worker's answer. After a cancellation the worker is idle, or killed."""
        asked = asyncio.ensure_future(self._exchange(request))
        try:
            answer = await asyncio.shield(asked)
        except asyncio.CancelledError:
            try:
                await asyncio.wait({asked}, timeout=_PATIENCE)
            finally:
                if not asked.done():
                    asked.cancel()
                    self.end()
            raise
        if isinstance(answer, PlexodusError):
            raise answer
        return answer

    async def _exchange(self, request: object) -> object:
        if self._ended:
            return _killed()
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._socket)
        out, into = self._streams
        try:
            into.write(framed(request))
            await into.drain()
            head = await out.readexactly(LENGTH_BYTES)
            body = await out.readexactly(int.from_bytes(head, "big"))
        except (ConnectionError, asyncio.IncompleteReadError):
            return _killed()
        answer: object = pickle.loads(body)  # noqa: S301 - of a process of our own
        return answer


def _killed() -> Interrupted:
    return Interrupted(
        "a worker process has ended",
        hint="If the log above does not say why, the kernel killed it because memory was short: "
        "raise the memory limit. The next run resumes.",
    )


def _become_worker(requests: socket.socket, parent: int) -> None:
    """Run the child until it is killed. It touches nothing that belongs to the parent."""
    status = 1
    try:
        gc.freeze()  # or sockets of the parent's that are garbage would close descriptors of ours
        signal.set_wakeup_fd(-1)  # or the parent's event loop would hear of our signals
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
        end_with(parent)
        _close_all_but(requests.fileno())
        with requests.makefile("rb") as incoming, requests.makefile("wb") as outgoing:
            work(incoming, outgoing)
        status = 0
    except Exception:  # noqa: BLE001 - nothing above would report it
        _log.exception("unexpected failure of a worker: this is a bug, please report it")
    finally:
        os._exit(status)


def _close_all_but(kept: int) -> None:
    """Close all inherited descriptors except ``kept`` and the standard streams.

    Only open ones are listed, because the limit may be a billion.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > _STDERR and fd != kept:
            with suppress(OSError):  # the listing's own
                os.close(fd)


@contextmanager
def start_workers(count: int) -> Iterator[list[Worker]]:
    """Start workers that end together. Start them before there are threads."""
    workers = [Worker() for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.end()
