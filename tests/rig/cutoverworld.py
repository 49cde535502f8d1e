"""Both sides of a cutover on files in one folder, with Plex, the clock and the network made up.

What is real: the agent's :class:`CutoverControl` and its records, the puller's :class:`Move` and
:class:`Cutover`, the volume's records, publication. What is made up: Plex is a flag and a number
that grows whenever it writes; bringing the library is copying that number.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

from agent.host import cutoverrecord
from agent.host.cutover import CutoverControl
from initpuller import cutover as puller_cutover
from initpuller import migrate, pending
from initpuller.cutover import Cutover
from initpuller.migrate import Move
from initpuller.passes import Passes, PullOptions
from initpuller.report.progress import PullProgress
from initpuller.volume import publish, unpublish
from initpuller.volume.decision import Action, OnExisting
from initpuller.volume.findings import finished, look
from initpuller.volume.layout import Layout
from initpuller.volume.ownership import choose_ownership
from initpuller.volume.records import load_state
from initpuller.wire.backoff import Retrier
from rig.cutoverplex import Killed, Lifeline, MadeUpPlex
from rig.cutoverpuller import MadeUpPasses, MadeUpWire
from shared.durable import write_durably
from shared.errors import AgentUnreachable, PlexodusError, storage_error
from shared.pairing import Pairing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEASE = 60.0


async def _here(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    return work(*args, **kwargs)


async def _told(_event: str, _about: str) -> None:
    """Nobody reads the log of a made-up VM."""


class World:
    """All of it.

    Args:
        place: an empty folder.
        fate: called wherever something may go wrong; does so, or not.
    """

    def __init__(self, place: Path, fate: Callable[[str], None]) -> None:
        self.fate = fate
        self.agent, self.puller = Lifeline(), Lifeline()
        self.is_agent_up = True
        self.version, self.clock = 1, 1000.0
        self.told: list[str] = []
        self.is_snapshot_gone = self.is_disk_full = False
        self.lost = ""
        """What of the request under way does not arrive: ``request`` or ``answer``."""
        (place / "config").mkdir()
        (place / "state").mkdir()
        self.layout = Layout(str(place / "config"))
        os.mkdir(self.layout.folder)
        self.state = str(place / "state")
        self.plex = MadeUpPlex(self)
        self.control = self._control()

    def _control(self) -> CutoverControl:
        def tell(event: str, _about: str) -> None:
            self.told.append(event)

        return CutoverControl(
            self.state,
            self.plex,
            tell,
            LEASE,
            5.0,
            list,
            lambda _: not self.is_snapshot_gone,
            lambda: self.clock,
        )

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Both processes can be killed, and wait by this world's clock."""
        names = [
            (cutoverrecord, "fsync_folder", self.agent),
            (puller_cutover, "save_state", self.puller),
            (pending, "save_state", self.puller),
            (unpublish, "save_state", self.puller),
            (publish, "save_state", self.puller),
            (publish, "save_receipt", self.puller),
            (publish, "rename_noreplace", self.puller),
            (publish, "remove_leftovers", self.puller),
        ]
        with ExitStack() as stack:
            for module, name, process in names:
                stack.enter_context(
                    patch.object(module, name, process.around(getattr(module, name)))
                )
            write = self.agent.around(self._written(write_durably))
            stack.enter_context(patch.object(cutoverrecord, "write_durably", write))
            stack.enter_context(patch.object(time, "sleep", self._pass))
            stack.enter_context(patch.object(asyncio, "sleep", self._sleep(asyncio.sleep)))
            stack.enter_context(patch.object(asyncio, "to_thread", _here))  # the same each time
            yield

    def _written(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any) -> None:  # noqa: ANN401 - as it takes them
            if self.is_disk_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(*args)

        return write

    def _pass(self, seconds: float) -> None:
        self.clock += seconds

    def _sleep(self, real: Callable[[float], Any]) -> Callable[[float], Any]:
        async def sleep(seconds: float) -> None:
            until = self.clock + seconds
            await real(0)
            while seconds >= 1 and self.clock < until:
                await real(0)

        return sleep

    def with_agent(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it gives
        """What the agent answers; it may be down, or die over it."""
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
        """What its daemon does every second."""
        if self.is_agent_up:
            try:
                self.with_agent(self.control.tend)
                self.with_agent(self.control.guard)
            except PlexodusError:
                return

    def start_agent(self) -> None:
        """As systemd does after it was killed."""
        if not self.is_agent_up:
            self.agent.is_dead, self.agent.left = False, None
            self.is_agent_up, self.control = True, self._control()
        self.tend()

    def stop_agent(self) -> None:
        """As ``systemctl stop``, and what systemd runs after that."""
        with suppress(PlexodusError):
            self.with_agent(self.control.leave)
        self.is_agent_up = False
        with suppress(PlexodusError):
            self._run_beside(committed=False)

    def undo(self) -> None:
        """As the administrator does it; the service may be up or not."""
        self._run_beside(committed=True)

    def _run_beside(self, *, committed: bool) -> None:
        service, self.agent = self.agent, Lifeline()
        try:
            self._control().lift("asked for", committed=committed)
        except OSError as error:
            raise storage_error(error, self.state) from error
        finally:
            self.agent = service

    def wait(self, seconds: float) -> None:
        """The agent looks in between."""
        self.clock += seconds
        self.tend()

    def reboot(self, uptime: float) -> None:
        """The VM starts again: Plex too, if nothing keeps it from that."""
        self.clock = uptime
        self.plex.running, self.plex.this_start = False, ""
        self.agent.is_dead, self.agent.left = False, None
        self.is_agent_up, self.control = True, self._control()
        self.plex.begin()
        self.tend()

    def write(self) -> None:
        """Plex writes, if it runs."""
        self.version += self.plex.running

    @property
    def published(self) -> int | None:
        """The version that is in the library's place."""
        return self._read(self.layout.library("Library"))

    @property
    def staged(self) -> int | None:
        """The version that is in staging."""
        return self._read(self.layout.staged("Library"))

    @staticmethod
    def _read(folder: str) -> int | None:
        return int(Path(folder, "version").read_text()) if os.path.isdir(folder) else None

    @property
    def volume_phase(self) -> str:
        """What the volume says."""
        state = load_state(self.layout)
        return state.phase if state is not None else "none"

    def pull(self, *, until_ready: bool = False) -> str:
        """One run of the puller; how it ended."""
        self.puller.is_dead, self.puller.left = False, None
        try:
            with self.patched():
                asyncio.run(self._pull(until_ready=until_ready))
        except Killed:
            return "killed"
        except PlexodusError as error:
            return type(error).__name__
        return "done"

    async def _pull(self, *, until_ready: bool) -> None:
        """As :func:`initpuller.migrate.pull`, without a lock and workers."""
        options = PullOptions(
            pairing=Pairing("127.0.0.1", 1, "t" * 43, "a" * 64),
            target=self.layout.target,
            ownership=choose_ownership(None),
            exclude=[],
            jobs=1,
            on_existing=OnExisting.FAIL,
            until_ready=until_ready,
            retrier=Retrier((0.0, 0.0)),
        )
        if finished(self.layout) is not None:
            return
        action = look(self.layout, options.on_existing)
        if action is Action.NOTHING or migrate._conclude(self.layout, action, options.on_existing):
            return
        passes = cast("Passes", MadeUpPasses(self))
        cutover = Cutover(self.layout, MadeUpWire(self), options.retrier)
        progress = PullProgress()
        await Move(self.layout, options, passes, cutover, progress, _told).until_over()
