"""The puller's ends in a made-up world: what brings a library, and what asks the agent."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar

from initpuller.volume import records
from initpuller.volume.records import State, load_state
from shared.errors import AgentUnreachable, SourceChanged
from shared.protocol import CutoverRequest, CutoverStanding, Library, Snapshot, StopFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.host.cutover import CutoverControl
    from rig.cutoverworld import World


class MadeUpPasses:
    """Copies the version into staging."""

    version = None
    databases: ClassVar[dict[str, str]] = {}

    def __init__(self, world: World) -> None:
        self.world = world

    async def live(self, **_: bool) -> bool:
        """While Plex runs."""
        await self.begin("live")
        return True

    async def begin(self, kind: str, **_: bool) -> SimpleNamespace:
        """Records as a scan leaves them."""
        await self.world_goes_on("scan")
        layout, state = self.world.layout, load_state(self.world.layout)
        seen, self.world.is_snapshot_gone = self.world.version, False
        name = hashlib.sha256(f"{kind} {seen}".encode()).hexdigest()
        library = Library("id", "Library", "host", "/Library")
        about = Snapshot(name, "cold", library, "now", 1, 1, 1, 1, 1, [], [], [])
        if state is None:
            state = State("transferring", about, "keep", "now")
        state.phase, state.receipt, state.snapshot = "transferring", None, about
        os.makedirs(layout.staged("Library"), exist_ok=True)
        _write(name, layout.manifest(name), layout.sums(name))
        self.world.puller.step()
        records.save_state(layout, state)
        self._copy(seen)
        return SimpleNamespace(
            layout=layout,
            state=state,
            seen=seen,
            manifest=SimpleNamespace(name=name, entries=lambda *_: [SimpleNamespace(mode=0o755)]),
            finisher=SimpleNamespace(close_folders=lambda: None),
            regular_file=lambda _: None,
            close=lambda: None,
        )

    async def bring(self, work: SimpleNamespace) -> None:
        """Bring it: what is read is as it was scanned, or refused."""
        await self.world_goes_on("frames")
        if self.world.version != work.seen:
            raise SourceChanged("Plex has written")
        self._copy(work.seen)
        await self.world_goes_on("verification")

    async def world_goes_on(self, where: str) -> None:
        """Whatever happens meanwhile; the lease is renewed if it is time to."""
        self.world.fate(where)
        self.world.puller.step()
        for _ in range(9):
            await asyncio.sleep(0)

    def _copy(self, version: int) -> None:
        _write(str(version), self.world.layout.staged("Library") + "/version")


class MadeUpWire:
    """Requests that may be lost, and so may their answers."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def standing(self) -> CutoverStanding:
        """See :class:`initpuller.wire.cutover.CutoverClient`, here and below."""
        return self._ask(lambda control: control.standing())

    async def stop(self, request: CutoverRequest) -> CutoverStanding:
        """Stop."""
        return self._ask(lambda control: control.begin(request))

    async def renew(self, name: str) -> CutoverStanding:
        """Renew."""
        return self._ask(lambda control: control.renew(name))

    async def commit(self, name: str, snapshot: str) -> CutoverStanding:
        """Commit."""
        return self._ask(lambda control: control.commit(name, snapshot))

    async def undo(self, name: str, failure: StopFailure | None = None) -> CutoverStanding:
        """Undo."""
        return self._ask(lambda control: control.undo(name, "asked for", failure))

    def _ask(self, work: Callable[[CutoverControl], CutoverStanding]) -> CutoverStanding:
        world = self.world
        world.puller.step()
        world.lost = ""
        world.fate("request")
        world.puller.step()
        if world.lost == "request":
            raise AgentUnreachable("it was lost")
        answer: CutoverStanding = world.with_agent(lambda: work(world.control))
        if world.lost == "answer":
            raise AgentUnreachable("its answer was lost")
        world.puller.step()
        return answer


def _write(text: str, *paths: str) -> None:
    for path in paths:
        Path(path).write_text(text)
