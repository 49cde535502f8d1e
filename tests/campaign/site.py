"""Everything of one story: VM, network, volume, puller, and what is still to be repaired."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

from rig.power.disk import ForgetfulDisk
from rig.programs import AgentEnded, Finished, Puller

from campaign.faults import Side
from campaign.network import Network
from campaign.shim import Shim
from campaign.story import Mode, Story
from campaign.vm import Vm
from campaign.volume import Volume
from campaign.watch import Watch

if TYPE_CHECKING:
    import random
    import subprocess
    from collections.abc import Callable, Collection
    from pathlib import Path
    from types import TracebackType

    from rig.power.disk import Remains

_RESTART_SECONDS = 2.0
"""``RestartSec`` of the agent's unit."""


LIBRARY = "Library"
"""The library of the VM, relative to the folder of the story."""


class Site:
    """One VM and one volume, with a network between them.

    Args:
        story: the story.
        folder: a folder on a disk, with the library of the VM alone (:data:`LIBRARY`).
        made: the library as it was made.
        shim: the compiled shim if the story needs it.
        sides: those of which the power will be cut.
    """

    def __init__(
        self, story: Story, folder: Path, made: Path, shim: Path | None, sides: Collection[Side]
    ) -> None:
        self.story = story
        self.began = time.monotonic()
        self.timeline: list[str] = []
        self.violations: list[str] = []
        self.failure = ""
        """What the campaign itself failed with, so that the story is not judged."""
        shims = {
            name: Shim(shim, folder / f"{name}.shim") if shim else None
            for name in ("agent", "puller")
        }
        self.puller_shim = shims["puller"]
        places = {Side.NODE: folder / "volume", Side.VM: folder / "vm" / "states"}
        disks = {
            side: ForgetfulDisk(folder / f"{side.value}-disk", places[side], story.filesystem)
            for side in sides
        }
        self.vm = Vm(
            folder / "vm",
            folder / LIBRARY,
            shims["agent"],
            has_unit=story.has_unit,
            disk=disks.get(Side.VM),
        )
        self.volume = Volume(places[Side.NODE], disks.get(Side.NODE))
        self._made, self._folder = made, folder
        self.network = Network(self.vm.agent.port, story.rate)
        self.watch = Watch(
            self.vm,
            self.volume,
            made,
            report=self.violate,
            fail=self.fail,
            has_cutover=story.mode is not Mode.STOPPED,
        )
        self.pulls = 0
        """Number of pulls so far; that of the one under way."""
        self.failures: defaultdict[int, list[str]] = defaultdict(list)
        """The classes of the errors with which a pull has failed, by its number."""
        self.process: subprocess.Popen[bytes] | None = None
        self._sent: set[int] = set()
        """Each signal that was sent to this process."""
        self._puller: Puller | None = None
        self._refused = 0
        """Number of calls that had failed when the last pull began."""
        self._due: list[tuple[float, str, Callable[[], None]]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start all of it: Plex runs and writes, the agent serves."""
        with ExitStack() as stack:
            stack.callback(self.volume.unmount)
            self.volume.mount()
            stack.callback(self.vm.unmount)
            self.vm.mount()
            if self.story.mode is Mode.SET_ASIDE:
                self.volume.put_foreign(self._folder / "foreign")
            stack.enter_context(self.network)
            stack.callback(self.vm.end)
            self.vm.plex.start()
            pairing = self.vm.agent.pair(self.network.port)
            self.vm.start_agent()
            stack.callback(self._kill_puller)
            stack.enter_context(self.watch)
            log = self._folder / "puller.log"
            self._puller = Puller(self.volume.target, log, pairing, cutover=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all of it."""
        self._stack.close()

    def note(self, what: str) -> None:
        """Add a line to the timeline."""
        self.timeline.append(f"{time.monotonic() - self.began:6.2f} {what}")

    def violate(self, what: str) -> None:
        """Record that the promise is broken."""
        self.note(f"VIOLATION: {what}")
        self.violations.append(what)

    def fail(self, how: str) -> None:
        """Record that the campaign itself failed, and with what."""
        self.note(f"NOT JUDGED: {how}")
        self.failure = self.failure or how

    def begin_pull(self, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """Start a pull."""
        assert self._puller is not None
        self.note(f"pull {' '.join(options)}")
        self._sent.clear()
        self.pulls += 1
        environment = None
        if self.puller_shim is not None:
            environment = self._puller.environment() | self.puller_shim.environment
            self._refused = self.puller_shim.refused
        self.process = self._puller.begin(*options, environment=environment)
        return self.process

    def failed_calls(self) -> int:
        """Return how many calls below the volume have failed since the last pull began."""
        return self.puller_shim.refused - self._refused if self.puller_shim is not None else 0

    def finished(self) -> Finished:
        """Return the result of the pull, which has ended."""
        assert self._puller is not None
        assert self.process is not None
        ended = self._puller.finished(self.process)
        self.process = None
        self.failures[self.pulls] = ended.kinds()
        self.note(f"pull ended with {ended.code}. {ended.reason()[:300]}")
        if ended.code < 0 and -ended.code not in self._sent:
            self.violate(f"the puller was ended by signal {-ended.code}, which nobody sent")
        if ended.code == 1:
            self.violate(f"exit code 1 is a bug: {ended.text[-1500:]}")
        return ended

    def signal_puller(self, number: signal.Signals) -> bool:
        """Send a signal to the puller; return False if it does not run."""
        if self.process is None or self.process.poll() is not None:
            return False
        self._sent.add(number)
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        return True

    def check_agent(self) -> None:
        """Report an agent that has ended as none may."""
        how = self.vm.wrong_end()
        if how:
            self.violate(f"the agent {how}")

    def cut_power(
        self, disk: ForgetfulDisk, chance: random.Random, end: Callable[[], None]
    ) -> Remains:
        """Cut the power of a disk and of its machine, and mount what is left of it.

        The cut is at a random moment while processes end. In every second cut, the kernel writes
        back meanwhile what is only in memory.

        Args:
            disk: the disk.
            chance: decides what is left.
            end: waits for the end of the machine's processes, which have been killed.
        """
        with self.watch.interrupted():
            earliest = disk.log.stat().st_size
            end()
            if chance.random() < 0.5:
                disk.write_back()
            disk.cut()
            remains = disk.forget(chance, earliest)
            self.note(str(remains))
            disk.switch_on()
        return remains

    def later(self, seconds: float, what: str, repair: Callable[[], None]) -> None:
        """Have ``repair`` called after so many seconds, or at the end of the faults."""
        self._due.append((time.monotonic() + seconds, what, repair))

    def start_agent(self) -> None:
        """Start the agent. If it ends at once, start it again, as its unit does (Restart=).

        Its unit does not start one that has ended with 2 (RestartPreventExitStatus=).
        """
        try:
            self.vm.start_agent()
        except AgentEnded:
            self.check_agent()
            self.later(_RESTART_SECONDS, "agent starts again", self.start_agent)

    def repair_due(self, *, everything: bool = False) -> None:
        """Do the repairs whose time has come, or ``everything`` in its order."""
        now = time.monotonic()
        due = sorted(each for each in self._due if everything or each[0] <= now)
        self._due = [each for each in self._due if each not in due]
        for _, what, repair in due:
            self.note(what)
            repair()
        if everything:  # an agent that could not start again is started when the disk is repaired
            self._due.clear()

    @property
    def is_repaired(self) -> bool:
        """Whether no repair is waiting."""
        return not self._due

    def wait_for_puller(self) -> None:
        """Wait until the puller has ended, if it runs."""
        if self.process is not None:
            self.process.wait()

    def _kill_puller(self) -> None:
        self.signal_puller(signal.SIGKILL)
        self.wait_for_puller()
