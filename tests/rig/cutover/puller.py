"""Substitutes for network and threads, for a pull in this process.

Each request calls the agent's own classes directly. The request or its response may be lost. All
other code, on both sides, is the product's.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agent.frames.builder import build_frame
from agent.frames.encoder import encode
from agent.snapshots import whole_tree
from initpuller.agent_client.frames import Answer, Held
from initpuller.workers.frame_worker import Assignment, FrameWorker
from shared.checks import CheckId
from shared.durable import write_durably
from shared.errors import AgentUnreachable, storage_error
from shared.frames.codec import Encoding
from shared.wire.protocol import ServerReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.cutover.control import CutoverControl
    from initpuller.volume.staging.blocks import Unpacked
    from initpuller.workers.frame_worker import Order
    from rig.cutover.world import World
    from shared.wire.pairing import Pairing
    from shared.wire.protocol import (
        CutoverRequest,
        CutoverStanding,
        Snapshot,
        SnapshotRequest,
        StopFailure,
    )


class DirectClient:
    """Stands in for :class:`initpuller.agent_client.client.AgentClient`."""

    def __init__(self, world: World, pairing: Pairing) -> None:
        self.world = world
        self.pairing = pairing
        self.idle = 1.0

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing, because nothing is open."""

    async def tell(self, _event: str, _about: str) -> None:
        """Discard the event, because no test of the model reads the log."""

    async def report_checks(self, _checks: object) -> None:
        """Discard the results, which are for the page."""

    async def server(self, *_: Any) -> ServerReport:  # noqa: ANN401 - as the real one takes them
        """Return a report without failures."""
        checks = [CheckId.LIBRARY.passed("it is Plex's")]
        about = self.world.current.last.about
        return self.world.ask(lambda: ServerReport(about, "1.42.2", [], checks))

    async def scan(self, request: SnapshotRequest) -> Snapshot:
        """Have the agent scan the library."""
        await self._pause("scan")
        return self.world.ask(lambda: self.world.store.scan(request))

    async def manifest(self, snapshot: Snapshot, path: str) -> None:
        """Save the manifest."""

        def asked() -> bytes:
            """Do what the agent does for this request."""
            return Path(self.world.store.open(snapshot.id).manifest.path).read_bytes()

        self._put(path, self.world.ask(asked))

    async def omitted(self, snapshot: Snapshot, path: str) -> None:
        """Save the list of what was left out."""

        def asked() -> bytes:
            """Do what the agent does for this request."""
            return Path(self.world.store.open(snapshot.id).omitted_path).read_bytes()

        self._put(path, self.world.ask(asked))

    async def sums(self, snapshot: Snapshot, path: str, _most: int) -> None:
        """Save all digests."""

        def asked() -> bytes:
            """Do what the agent does for this request."""
            opened = self.world.store.open(snapshot.id)
            whole_tree.complete_digests(opened)
            return b"".join(whole_tree.sums(opened))

        self._put(path, self.world.ask(asked))

    async def check(self, snapshot: str) -> None:
        """Check that the library is unchanged since the scan."""
        await self._pause("verification")
        store = self.world.store

        def asked() -> None:
            """Do what the agent does for this request."""
            opened = store.open(snapshot)
            store.check_source(opened)
            whole_tree.check_unchanged(opened)

        self.world.ask(asked)

    async def _pause(self, where: str) -> None:
        """Let an event of the model happen, and let the lease be renewed if it is due."""
        self.world.fate(where)
        self.world.puller.step()
        for _ in range(9):
            await asyncio.sleep(0)

    def _put(self, path: str, content: bytes) -> None:
        self.world.puller.step()
        try:
            write_durably(path, content)
        except OSError as error:
            raise storage_error(error, path) from error


class DirectCutover:
    """Stands in for :class:`initpuller.agent_client.cutover.CutoverClient`."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def standing(self) -> CutoverStanding:
        """Return the state of the cutover."""
        return self._ask(lambda control: control.confirmed())

    async def stop(self, request: CutoverRequest) -> CutoverStanding:
        """Have the agent stop Plex."""

        def begun(control: CutoverControl) -> CutoverStanding:
            """Do what the agent does for this request."""
            self.world.store.check_library()
            return control.begin(request)

        return self._ask(begun)

    async def renew(self, name: str) -> CutoverStanding:
        """Renew the lease."""
        return self._ask(lambda control: control.renew(name))

    async def commit(self, name: str, snapshot: str) -> CutoverStanding:
        """Commit the move."""
        self.world.volume.committed_as.setdefault(snapshot, self.world.library)
        return self._ask(lambda control: control.commit(name, snapshot))

    async def undo(self, name: str, failure: StopFailure | None = None) -> CutoverStanding:
        """Undo the cutover."""
        return self._ask(lambda control: control.undo(name, "asked for", failure))

    def _ask(self, work: Callable[[CutoverControl], CutoverStanding]) -> CutoverStanding:
        world = self.world
        world.puller.step()
        world.lost = ""
        world.fate("request")
        world.puller.step()
        if world.lost == "request":
            raise AgentUnreachable("it was lost")
        answer: CutoverStanding = world.ask(lambda: work(world.control))
        if world.lost == "answer":
            raise AgentUnreachable("its answer was lost")
        world.puller.step()
        return answer


class DirectConnection:
    """Stands in for :class:`initpuller.agent_client.frames.FrameConnection`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: str | None = None
        self._held: Held | None = None

    def ask(self, route: str, held: Held | None = None) -> None:
        """Request a frame."""
        self.asked, self._held = route, held

    def close(self) -> None:
        """Do nothing: no connection is open."""

    def answer(self, _most: int) -> Answer:
        """Return the frame that was requested."""
        route, self.asked = self.asked, None
        name, number = (route or "").split("/")[3], int((route or "").split("/")[5].split(".")[0])

        def made() -> Answer:
            built = build_frame(self.world.store.open(name), number)
            tag = built.tag.hex()
            if self._held is not None and self._held.tag == tag:
                return Answer(tag)
            return Answer(tag, bytes(encode(built.tar, Encoding.ZSTD)))

        answer: Answer = self.world.ask(made)
        return answer


class DirectWorker:
    """Stands in for :class:`initpuller.workers.threads.Worker`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._worker: FrameWorker | None = None

    async def assign(self, assignment: Assignment) -> None:
        """Start with a snapshot."""
        self.end()
        self._worker = FrameWorker(assignment)

    async def bring(self, order: Order) -> Unpacked:
        """Fetch and unpack a frame, or raise the volume's error."""
        self.world.fate("frame")
        self.world.puller.step()
        for _ in range(9):
            await asyncio.sleep(0)
        if (number := self.world.volume_fault) is not None:
            error = OSError(number, os.strerror(number))
            raise storage_error(error, self.world.volume.layout.staging) from error
        if self._worker is None:
            raise ValueError("an order without an assignment")
        return self._worker.bring(order)

    def end(self) -> None:
        """Close the staging folder."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
