"""A cancelled pull leaves no thread that still writes into staging, and does not wait for long."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from rig.hostile.raw_agent import RawAgent, raw_agent
from rig.two_sides import TwoSides
from rig.waiting import wait_until
from structlog.contextvars import bound_contextvars, get_contextvars

from agent.frames.encoder import encode
from initpuller.workers import frame_worker, threads
from initpuller.workers.frame_worker import Assignment, Order
from initpuller.workers.threads import Worker
from shared.errors import FrameDamaged
from shared.frames.codec import Encoding

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from initpuller.volume.reuse.recorded import Listing
    from initpuller.volume.staging.blocks import Unpacked
    from initpuller.volume.staging.staging import Staging

SECONDS = 30.0
"""A deadline for what takes milliseconds; if the thread is not interrupted, it waits longer."""
MINUTES = 600.0
CONTENT = os.urandom(100_000)


@dataclass
class Lane:
    """A worker with its agent, for a library of one frame."""

    worker: Worker
    assignment: Assignment
    order: Order
    staged: Path
    agent: RawAgent
    may_end: threading.Event
    """The agent sends the second half of its first response when this is set."""

    async def begin(self) -> asyncio.Task[Unpacked]:
        """Have the frame fetched."""
        await self.worker.assign(self.assignment)
        return asyncio.create_task(self.worker.bring(self.order))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written."""
        return not self.staged.exists()


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[tuple[TwoSides, Listing, Staging]]:
    """Return staging for a library of one file."""
    library = tmp_path / "Library"
    library.mkdir()
    (library / "file").write_bytes(CONTENT)
    sides = TwoSides(tmp_path / "sides", library)
    listing = sides.scan()
    staging = sides.begin(listing)
    yield sides, listing, staging
    staging.close()


@pytest.fixture
def lane(tmp_path: Path, staging: tuple[TwoSides, Listing, Staging]) -> Iterator[Lane]:
    """Return a lane whose agent sends half of a frame, and then waits."""
    sides, listing, begun = staging
    fetched, manifest = sides.fetch(listing, 0), listing.manifest
    body = bytes(encode(fetched.tar, Encoding.ZSTD))
    head = f'HTTP/1.1 200 OK\r\nETag: "{fetched.tag}"\r\nContent-Length: {len(body)}\r\n\r\n'
    may_end = threading.Event()

    def answer(agent: RawAgent, connection: ssl.SSLSocket) -> None:
        agent.send(connection, head.encode() + body[: len(body) // 2])
        may_end.wait(MINUTES)
        agent.send(connection, body[len(body) // 2 :])

    with raw_agent(tmp_path / "state", answer) as agent:
        assignment = Assignment(
            pairing=agent.pairing,
            idle=MINUTES,
            encoding=Encoding.ZSTD,
            snapshot=manifest.name,
            manifest=manifest.path,
            staging=begun.layout.staging,
            digests=begun.layout.digests(manifest.name),
            entries=manifest.plan.entries,
            policy=begun.policy,
        )
        location = manifest.location(fetched.frame.first, fetched.frame.count)
        order = Order(fetched.frame, location, None, None)
        worker = Worker()
        yield Lane(worker, assignment, order, sides.staged, agent, may_end)
        worker.end()
        may_end.set()


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds."""
    await asyncio.to_thread(wait_until, condition, SECONDS)


async def cancelled(task: asyncio.Task[Unpacked]) -> None:
    """Require that ``task`` ends as cancelled."""
    async with asyncio.timeout(SECONDS):
        with pytest.raises(asyncio.CancelledError):
            await task


def count_threads() -> int:
    """Return how many threads fetch a frame."""
    return sum(thread.name == threads.THREAD for thread in threading.enumerate())


class Step:
    """Stands in for a step of the thread: it waits, then does the real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.began, self.may_go_on = threading.Event(), threading.Event()
        self.context: dict[str, object] = {}
        self._real = getattr(frame_worker, name)
        monkeypatch.setattr(frame_worker, name, self)

    def __call__(self, *args: object) -> object:
        """Wait."""
        self.context = get_contextvars()
        self.began.set()
        self.may_go_on.wait(MINUTES)
        return self._real(*args)


async def test_agent_stalls_within_a_frame(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that waits for the agent ends at once, writes nothing, and its error is no news."""
    monkeypatch.setattr(threads, "_PATIENCE", MINUTES)
    task = await lane.begin()
    await until(lambda: lane.agent.sent)
    task.cancel()
    await cancelled(task)
    await until(lambda: count_threads() == 0)
    assert lane.is_empty
    gc.collect()
    assert caplog.records == []


async def test_cancelled_twice(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal does not keep the thread from being waited for."""
    step = Step(monkeypatch, "unpack_frame")
    lane.may_end.set()
    task = await lane.begin()
    await until(step.began.is_set)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    step.may_go_on.set()
    await cancelled(task)
    await until(lambda: count_threads() == 0)


async def test_cancelled_while_a_frame_is_written(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write is awaited, however long it takes: nothing is written afterward."""
    monkeypatch.setattr(threads, "_PATIENCE", 0.01)
    step = Step(monkeypatch, "unpack_frame")
    lane.may_end.set()
    with bound_contextvars(frame=7):
        task = await lane.begin()
    await until(step.began.is_set)
    assert step.context == {"frame": 7}, "log lines of the thread name the frame"
    task.cancel()
    await asyncio.sleep(0.1)
    assert not task.done()
    step.may_go_on.set()
    await cancelled(task)
    assert (lane.staged / "file").read_bytes() == CONTENT
    await until(lambda: count_threads() == 0)


async def test_thread_that_cannot_be_interrupted(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is left behind writes nothing, although it has a whole frame."""
    monkeypatch.setattr(threads, "_PATIENCE", 0.01)
    step = Step(monkeypatch, "decode")
    lane.may_end.set()
    task = await lane.begin()
    await until(step.began.is_set)
    task.cancel()
    await cancelled(task)
    assert count_threads() == 1
    step.may_go_on.set()
    await until(lambda: count_threads() == 0)
    assert lane.is_empty


async def test_worker_is_used_again(lane: Lane) -> None:
    """After a cancellation, the same worker fetches the frame for the next assignment."""
    task = await lane.begin()
    await until(lambda: lane.agent.sent)
    task.cancel()
    await cancelled(task)
    lane.may_end.set()
    unpacked = await (await lane.begin())
    assert [entry.path for _, entry in unpacked.late] == [b"Library"]
    assert (lane.staged / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("error", [FrameDamaged("damaged"), RuntimeError("a bug")], ids=repr)
async def test_error_of_a_thread(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An error in the thread is raised where the frame is awaited."""

    def fail(*_: object) -> None:
        """Fail in the place of the work on a frame."""
        raise error

    monkeypatch.setattr(frame_worker, "unpack_frame", fail)
    lane.may_end.set()
    task = await lane.begin()
    with pytest.raises(type(error)):
        await task
