"""A VM and volumes in one process, with a simulated Plex, clock and network.

The pull (:func:`initpuller.pull.recipe.pull`) with all below it, the agent's snapshots, frames and
cutover, records, locks, renames and files are the product's. Plex (a flag, and writes to a small
library), the clock, and the transmission of requests are simulated.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

from agent.cutover import record, start_block
from agent.cutover.context import CutoverContext
from agent.cutover.control import CutoverControl
from agent.cutover.record import witness_folder
from agent.settings import Settings
from agent.snapshots.store import SnapshotStore
from agent.source import database_copies
from agent.source.library import CurrentLibrary
from initpuller.agent_client import client, cutover
from initpuller.agent_client.retry import Retrier
from initpuller.pull import recipe
from initpuller.pull.options import Mode, PullOptions
from initpuller.report.progress import PullProgress
from initpuller.volume.fitness import probe
from initpuller.volume.fitness.database_trial import Verdict
from initpuller.volume.ownership import choose_ownership
from initpuller.volume.publish import publish, unpublish
from initpuller.volume.records import record_file
from initpuller.volume.staging.staging import Staging
from initpuller.workers import frame_worker
from rig.cutover import library as cutover_library
from rig.cutover.plex import Killed, Lifeline, MadeUpPlex
from rig.cutover.puller import DirectClient, DirectConnection, DirectCutover, DirectWorker
from rig.cutover.volume import MOVE, Request, Volume
from shared.durable import write_durably
from shared.errors import AgentUnreachable, CutoverRefused, PlexodusError, storage_error
from shared.plex.library import ServerFacts
from shared.wire.pairing import Pairing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
_LEAVES = 8
"""Seconds that an agent has to undo a cutover when it ends."""
_LOOKS = 60
"""Seconds in which 'plexodus-agent undo' wants to see Plex run."""
_BETWEEN_STARTS = 5
"""Seconds after a start that failed."""
LEASE = 60.0
STOP_SECONDS = 5.0
_PAIRING = Pairing("127.0.0.1", 1, "t" * 43, "a" * 64)


class World:
    """The VM, the volumes, and the processes of agent and puller.

    Args:
        place: an empty folder.
        elsewhere: an empty folder on another filesystem.
        fate: called at each point of a pull where an event may happen.
    """

    def __init__(self, place: Path, elsewhere: Path, fate: Callable[[str], None]) -> None:
        self.place, self.fate = place, fate
        self.agent, self.puller = Lifeline(), Lifeline()
        self.is_agent_up = True
        self.is_purged = False
        """The agent's record was removed."""
        self.is_purged_committed = False
        """It was removed after a commit: Plex stays stopped, and the next pull publishes."""
        self.clock, self.writes, self.moves = 1000.0, 1, 0
        self.told: list[str] = []
        self.full_disk: str | None = None  # the beginning of paths that have no room
        self.volume_fault: int | None = None
        self.lost = ""
        """What is lost of the request under way: ``request``, ``answer``, or nothing."""
        self.vm = place / "vm"
        self.vm.mkdir()
        cutover_library.make_library(self.vm)
        self.volumes = [Volume(place / "config"), Volume(elsewhere / "config")]
        self.volume = self.volumes[0]
        self.state = str(place / "state")
        os.mkdir(self.state)
        self.units = place / "units"
        """Folder of the administrator's units. The package's removal leaves a block there."""
        self.units.mkdir()
        self._backup = place / "backup"
        self.plex = MadeUpPlex(self)
        self.stopped_as: set[str] = set()
        """Digests of the library, each time Plex was stopped during the pull under way."""
        self._start()

    def _start(self) -> None:
        self.current = CurrentLibrary(str(self.vm / "Library"), str, self.state)
        self.store = SnapshotStore(self.state, self.current)
        self.control = self._control()

    def _control(self) -> CutoverControl:
        context = replace(
            self._context,
            has_cold=lambda name: self.store.has_cold(name),  # noqa: PLW0108 - the one of then
            has_been_used=lambda name: self.store.has_been_used(name),  # noqa: PLW0108
        )
        return CutoverControl(self.state, self.plex, context)

    @property
    def _context(self) -> CutoverContext:
        """The context of ``plexodus-agent undo``, which has no snapshots."""
        return CutoverContext(
            LEASE, STOP_SECONDS, lambda event, _about: self.told.append(event),
            database_folder=self.plex.database_folder, find_use=self.plex.find_use,
            find_holder=self.plex.find_holder, clock=lambda: self.clock,
        )  # fmt: skip

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Inside, both processes can be killed, and wait by the simulated clock."""
        killable = [
            (self.agent, record, "fsync_folder"),
            (self.agent, record, "write_durably"),
            (self.puller, record_file, "write_durably"),
            (self.puller, publish, "rename_noreplace"),
            (self.puller, publish, "remove_leftovers"),
            (self.puller, unpublish, "rename_noreplace"),
            (self.puller, Staging, "commit"),
        ]
        replaced = [
            (client, "AgentClient", lambda pairing, _idle: DirectClient(self, pairing)),
            (cutover, "CutoverClient", lambda _client: DirectCutover(self)),
            (frame_worker, "FrameConnection", lambda *_: DirectConnection(self)),
            (recipe, "start_workers", lambda _jobs: self._workers()),
            # Checks of SQLite run in a process of their own, which takes longer than a pull.
            (recipe, "read_facts", lambda *_: ServerFacts("1.42.2", "m", [])),
            (database_copies, "back_up", cutover_library.copy_database),
            (probe, "try_database", lambda _folder: Verdict.WORKS),
            (time, "sleep", self._pass),
            (asyncio, "sleep", self._sleep(asyncio.sleep)),
            (asyncio, "to_thread", _here),  # deterministic order
        ]
        with ExitStack() as stack:
            stack.enter_context(patch.object(record, "write_durably", self._written))
            for process, module, name in killable:
                around = process.around(getattr(module, name))
                stack.enter_context(patch.object(module, name, around))
            for module, name, instead in replaced:
                stack.enter_context(patch.object(module, name, instead))
            yield

    @contextmanager
    def _workers(self) -> Iterator[list[DirectWorker]]:
        worker = DirectWorker(self)
        try:
            yield [worker]
        finally:
            worker.end()

    def _written(self, path: str, content: bytes, mode: int = 0o600) -> None:
        if self.full_disk is not None and path.startswith(self.full_disk):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_durably(path, content, mode)

    def _pass(self, seconds: float) -> None:
        self.clock += seconds

    def _sleep(self, real: Callable[[float], Any]) -> Callable[[float], Any]:
        async def sleep(seconds: float) -> None:
            until = self.clock + seconds
            await real(0)
            if seconds == 1:  # a loop polls the agent's state
                self.wait(seconds)
            while seconds > 1 and self.clock < until:
                await real(0)

        return sleep

    def ask(self, work: Callable[[], T]) -> T:
        """Return the agent's response.

        Raises:
            AgentUnreachable: If the agent is down, or is killed during ``work``.
        """
        if not self.is_agent_up:
            raise AgentUnreachable("it is down")
        try:
            return work()
        except Killed:
            self.is_agent_up = False
            raise AgentUnreachable("it has just died") from None
        except OSError as error:
            raise storage_error(error, self.state) from error

    def tend(self) -> None:
        """Do the periodic work of the agent's daemon."""
        if self.is_agent_up:
            try:
                self.ask(self.control.tend)
                self.ask(self.control.guard)
            except PlexodusError:
                return

    def start_agent(self) -> None:
        """Start it as systemd does after it was killed, or as after a new installation."""
        if not self.is_agent_up:
            self.agent.is_dead, self.agent.left = False, None
            os.makedirs(self.state, exist_ok=True)
            self._start()
            self.is_agent_up = True
            with suppress(PlexodusError):
                self.ask(self.control.started)
        self.tend()

    def stop_agent(self) -> None:
        """Stop it as ``systemctl stop`` does, and run its ``ExecStopPost``."""
        with suppress(PlexodusError):
            for _ in range(_LEAVES):
                if self.ask(self.control.leave):
                    break
                self.clock += 1
        self.is_agent_up = False
        with suppress(PlexodusError):
            self._undo_beside(committed=False)

    def undo(self) -> None:
        """Undo as the administrator does, whether the service runs or not."""
        had_block = start_block.lift_start_blocks(str(self.units))
        self._undo_beside(committed=True)
        if had_block:
            self.plex.start()

    def _undo_beside(self, *, committed: bool) -> None:
        """Do what ``plexodus-agent undo`` does, in a process that outlives the agent."""
        agent = self.agent
        of_agent = agent.is_dead, agent.left, agent.visitor
        agent.is_dead, agent.left, agent.visitor = False, None, None
        try:
            self._lift(CutoverControl(self.state, self.plex, self._context), committed=committed)
        except OSError as error:
            raise storage_error(error, self.state) from error
        finally:
            agent.is_dead, agent.left, agent.visitor = of_agent

    def _lift(self, control: CutoverControl, *, committed: bool) -> None:
        """Undo; if the agent has ended, repeat a start that fails, as its last command does."""
        is_by_hand, deadline = committed, self.clock + _LOOKS
        while True:
            try:
                standing = control.lift("asked for", committed=committed)
            except CutoverRefused:
                if is_by_hand or self.clock > deadline:
                    raise
                self.clock += _BETWEEN_STARTS
            else:
                if standing.phase != "undoing" or self.clock > deadline:
                    return
                self.clock += 1
                committed = False

    def purge(self) -> None:
        """Purge the agent's package, as the runbook's last step does. Its prerm undoes, too."""
        self.stop_agent()
        with suppress(PlexodusError):
            self._undo_beside(committed=False)
        self.is_purged_committed |= self.control.standing().phase == "committed"
        start_block.keep_stopped(Settings(state=self.state), str(self.units))
        shutil.rmtree(self.state)
        shutil.rmtree(witness_folder(self.state), ignore_errors=True)
        self.is_purged = True

    def back_up_state(self) -> None:
        """Copy the agent's state folder, as a backup of the VM does."""
        shutil.rmtree(self._backup, ignore_errors=True)
        if os.path.isdir(self.state):
            shutil.copytree(self.state, self._backup)

    def restore_state(self) -> None:
        """Put the backup back in place of the state folder; without one, lose the folder."""
        shutil.rmtree(self.state, ignore_errors=True)
        if self._backup.is_dir():
            shutil.copytree(self._backup, self.state)
        else:
            os.mkdir(self.state)
        self.store = SnapshotStore(self.state, self.current)

    def is_blocked(self) -> bool:
        """Return whether a fence or a block keeps systemd from starting Plex."""
        return self.control.fence.is_up() or self.has_start_block()

    def has_start_block(self) -> bool:
        """Return whether a removal of the package has left a block of Plex's start."""
        return any(self.units.iterdir())

    def drop_snapshots(self) -> None:
        """Have the agent discard all snapshots, as when newer ones have replaced them."""
        if os.path.isdir(self.state):
            shutil.rmtree(os.path.join(self.state, "snapshots"), ignore_errors=True)
            self.store = SnapshotStore(self.state, self.current)

    def wait(self, seconds: float) -> None:
        """Let time pass, with the agent's periodic work."""
        until = self.clock + seconds
        while self.clock < until:
            self.clock = min(until, self.clock + max(1.0, (until - self.clock) / 8))
            self.tend()

    def reboot(self, uptime: float) -> None:
        """Reboot the VM. Plex starts if it is enabled and not blocked."""
        self.clock = uptime
        self.plex.cut()
        self.plex.this_start = ""
        self.is_agent_up = False
        if self.plex.is_started_at_boot:
            self.plex.begin()
        self.start_agent()

    def write(self) -> None:
        """Have Plex write, if it runs."""
        if self.plex.running:
            self.writes += 1
            cutover_library.write(self.vm, self.writes)

    def move_library(self) -> None:
        """Replace the library by a copy, as for a move to a larger disk, while Plex is stopped."""
        was_running = self.plex.running
        self.plex.cut()
        self.moves += 1
        new, old = self.place / f"disk{self.moves}", self.place / f"old{self.moves}"
        cutover_library.copy(self.vm, new)
        (self.vm / "Library").rename(old)
        (new / "Library").rename(self.vm / "Library")
        if was_running:
            self.plex.begin()

    def note(self) -> None:
        """Record the library's digest if Plex is stopped."""
        if not self.plex.running:
            self.stopped_as.add(self.library)

    def fresh_volume(self) -> Volume:
        """Return one more volume."""
        self.volumes.append(Volume(self.place / f"config{len(self.volumes)}"))
        return self.volumes[-1]

    @property
    def library(self) -> str:
        """Digest of the library on the VM as it is now."""
        return cutover_library.tree(self.vm / "Library")

    @property
    def published(self) -> list[Volume]:
        """Volumes with a published library that the administrator has not given up."""
        return [
            each
            for each in self.volumes
            if each.receipt is not None and each.library.is_dir() and not each.is_given_up
        ]

    def pull(self, request: Request = MOVE) -> str:
        """Run the puller once, and return how it ended."""
        self.puller.is_dead, self.puller.left = False, None
        try:
            with self.patched():
                asyncio.run(self._pull(request))
        except Killed:
            return "killed"
        except PlexodusError as error:
            return type(error).__name__
        return "done"

    async def _pull(self, request: Request) -> None:
        """Do what ``plexodus-puller pull`` does once its options are read."""
        mode, target = request.mode, self.volume.layout.target
        if recipe.published_earlier(target, rehearse=mode is Mode.REHEARSE) is not None:
            return
        options = PullOptions(
            pairing=_PAIRING,
            target=target,
            ownership=choose_ownership(request.owner),
            exclude=[],
            jobs=1,
            on_existing=request.on_existing,
            mode=mode,
            retry_failed=request.retry_failed,
            retrier=Retrier((0.0, 0.0)),
        )
        await recipe.pull(options, PullProgress())


async def _here(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    return work(*args, **kwargs)
