"""The model of whole moves, with faults at every point: each move ends in one of two ways.

Either the move is committed: Plex on the VM stays stopped, and the volume has exactly what Plex
left. Or it is not: nothing is published, and Plex runs on the VM if it ran before.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from initpuller.pull.options import Mode
from initpuller.volume.decision import OnExisting
from rig.cutover import library as cutover_library
from rig.cutover.fates import (
    FATES,
    FAULTS,
    KINDS,
    REQUESTS,
    SECONDS,
    STEPS,
    STOP_SECONDS,
    STOPS,
    UNANSWERED,
    UPTIMES,
)
from rig.cutover.results import begin_pull, check_result
from rig.cutover.volume import MOVE, Request, Volume
from rig.cutover.world import LEASE, World
from shared.errors import PlexodusError

if TYPE_CHECKING:
    from rig.cutover.plex import Lifeline

seen: Counter[str] = Counter()  # number of occurrences of each event, over all runs


class CutoverMachine(RuleBasedStateMachine):
    """Consecutive runs of the puller, and the events around them."""

    parents = ("", "")
    """Two folders on two filesystems. Each story has a subfolder in both."""

    @initialize(is_running=st.booleans(), kind=KINDS, stop_takes=STOPS)
    def begin(self, is_running: bool, kind: str, stop_takes: float) -> None:  # noqa: FBT001
        """Create a VM whose Plex runs or not, as a unit or a container, with its stop time."""
        here, elsewhere = (Path(tempfile.mkdtemp(dir=parent)) for parent in self.parents)
        self.places = here, elsewhere
        self.data: Any = None
        self.world = World(*self.places, self._fate)
        self.wanted: bool | None = is_running
        if not is_running:
            self.world.plex.cut()
        self.world.plex.is_unit, self.world.plex.stop_takes = kind == "unit", stop_takes
        self.world.plex.is_hidden = kind == "hidden container"

    def teardown(self) -> None:
        """Wait until nothing changes, check the end, and pull again without faults."""
        if not hasattr(self, "world"):
            return
        self.data, world = None, self.world
        world.plex.is_stubborn, world.plex.failing, world.plex.stop_takes = False, 0, 0.0
        world.plex.is_other_stopped = world.plex.is_elsewhere = False
        world.plex.unanswered = 0
        world.full_disk = world.volume_fault = None
        world.agent.left = world.agent.visitor = None
        world.start_agent()
        self._rest()
        self.one_end()
        if not world.published:
            self._last_pull()
        for place in self.places:
            shutil.rmtree(place)

    def _last_pull(self) -> None:
        world = self.world
        if world.volume.is_given_up:
            if world.control.standing().phase == "committed":  # two servers ran: one has to go
                self.undone_by_hand()
            world.volume = world.fresh_volume()
        ended = world.pull(Request(Mode.MOVE, OnExisting.SET_ASIDE, retry_failed=True))
        assert ended == "done", ended
        assert world.published == [world.volume]
        self._is_moved(world.volume)
        world.reboot(5.0)
        assert not world.plex.running

    def _fate(self, where: str) -> None:
        """Apply the fault or the action planned for this point of a pull."""
        if self.data is None:
            return
        what = self.data.draw(st.sampled_from(FATES), label=where)
        seen[f"{where}: {what}"] += 1
        world = self.world
        if what.endswith(" lost"):
            world.lost = what.split()[0]
        elif what.endswith("killed"):
            self._process(what).is_dead = True
            world.is_agent_up = world.is_agent_up and not world.agent.is_dead
        elif what.endswith("killed later"):
            self._process(what).left = self.data.draw(STEPS)
        elif what == "time":
            world.wait(self.data.draw(SECONDS))
        elif what == "reboot":
            self.reboot(self.data.draw(UPTIMES))
        elif what == "somebody starts plex later":
            world.agent.visitor = self.data.draw(STEPS), self.somebody_starts_plex
        else:
            self._turn(what)
        world.note()

    def _process(self, what: str) -> Lifeline:
        return self.world.agent if what.startswith("agent") else self.world.puller

    def _turn(self, what: str) -> None:
        world, plex = self.world, self.world.plex
        turns: dict[str, Any] = {
            "agent back": world.start_agent,
            "agent stopped": world.stop_agent,
            "agent's disk full": lambda: setattr(world, "full_disk", world.state),
            "agent's copy too large": lambda: setattr(world, "full_disk", f"{world.state}-"),
            "agent's disk free": lambda: setattr(world, "full_disk", None),
            "snapshots gone": world.drop_snapshots,
            "plex writes": world.write,
            "somebody starts plex": self.somebody_starts_plex,
            "somebody restarts plex": self.somebody_restarts_plex,
            "plex runs for a while": self._plex_runs_for_a_while,
            "undone by hand": self.undone_by_hand,
            "query unanswered": lambda: setattr(plex, "unanswered", self.data.draw(UNANSWERED)),
            "library moved": self.library_moved,
            "volume broken": lambda: setattr(world, "volume_fault", self.data.draw(FAULTS)),
            "volume mended": lambda: setattr(world, "volume_fault", None),
            "name taken": world.volume.take_name,
            "name freed": world.volume.free_name,
            "state backed up": world.back_up_state,
            "state restored": self.state_restored,
            "package purged": self.package_purged,
            "nothing": lambda: None,
        }
        turns[what]()

    def _plex_runs_for_a_while(self) -> None:
        plex = self.world.plex
        if not plex.running:
            plex.begin()
            self.world.write()
            plex.cut()

    @rule(data=st.data(), request=REQUESTS, volume=st.sampled_from([0, 0, 0, 1]))
    def pull(self, data: Any, request: Request, volume: int) -> None:  # noqa: ANN401
        """Run the puller once, with faults at any of its points."""
        world = self.world
        world.volume = world.volumes[volume]
        if request.mode is Mode.MOVE_STOPPED:
            self.somebody_stops_plex()
        before, there = world.volume.receipt, begin_pull(world.volume)
        self.data, world.stopped_as = data, set()
        world.note()
        ended = world.pull(request)
        self.data = None
        seen[f"{request.mode.name.lower()}: {ended}"] += 1
        if before is None and world.volume.receipt is not None:
            self._has_published(request)
        check_result(world.volume, there, request, ended)

    def _has_published(self, request: Request) -> None:
        """Assert that the volume has what Plex left, and that no cutover ends with Plex running."""
        world = self.world
        assert request.mode in (Mode.MOVE, Mode.MOVE_STOPPED), request
        found = cutover_library.tree(world.volume.library)
        expected = set(world.stopped_as)
        if request.mode is Mode.MOVE:
            expected |= self._as_moved(world.volume)
        assert found in expected
        if world.control.standing().phase != "committed":
            assert request.mode is Mode.MOVE_STOPPED or world.volume.is_given_up
            world.volume.is_given_up = True

    @rule(data=st.data())
    def pull_again(self, data: Any) -> None:  # noqa: ANN401 - hypothesis' own
        """Run the puller again on the same volume, as kubelet does after a failure."""
        self.pull(data, MOVE, self.world.volumes.index(self.world.volume))

    @rule(seconds=SECONDS)
    def time(self, seconds: float) -> None:
        """Let time pass without any other event."""
        self.world.wait(seconds)

    @rule()
    def plex_writes(self) -> None:
        """Have Plex write to its library if it runs."""
        self.world.write()

    @rule()
    def somebody_starts_plex(self) -> None:
        """Start Plex as a person who does not know about the move. The fence may prevent it."""
        self.world.plex.begin()
        self.wanted = self.wanted or self.world.plex.running
        self._give_up_container()

    def _give_up_container(self) -> None:
        """Give up published volumes if a person started the container after the agent was purged.

        Without the agent, nothing stops a container that a person starts.
        """
        world = self.world
        if world.plex.running and not world.plex.is_unit and world.is_purged:
            for volume in world.published:
                volume.is_given_up = True

    @rule()
    def somebody_stops_plex(self) -> None:
        """Stop Plex as a person who does not know about the move."""
        self.world.plex.cut()
        self.world.note()
        # During a cutover, an undo may start Plex again although this person stopped it.
        self.wanted = False if self.world.control.standing().phase == "idle" else None

    @rule()
    def somebody_restarts_plex(self) -> None:
        """Restart Plex as an upgrade of its package does."""
        if self.world.plex.running:
            self.world.plex.cut()
            self.world.plex.begin()

    @rule()
    def library_moved(self) -> None:
        """Move the library to a larger disk that is then mounted at the old path."""
        self.world.move_library()

    @rule(taken=st.booleans(), volume=st.sampled_from([0, 1]))
    def name(self, taken: bool, volume: int) -> None:  # noqa: FBT001 - hypothesis' own way
        """Create a folder at the name that the library will have, or remove it."""
        there = self.world.volumes[volume]
        (there.take_name if taken else there.free_name)()

    @rule(uptime=UPTIMES)
    def reboot(self, uptime: float) -> None:
        """Reboot the VM. Plex starts at boot if it is enabled."""
        self.world.reboot(uptime)
        self.wanted = self.wanted or self.world.plex.is_started_at_boot

    @rule(steps=STEPS)
    def agent_killed(self, steps: int) -> None:
        """Kill the agent during its periodic work or after it, and start it again."""
        self.world.agent.left = steps
        self.world.tend()
        self.world.is_agent_up = False
        self.world.start_agent()

    @rule()
    def agent_stopped(self) -> None:
        """Stop the agent for a while. Plex runs meanwhile unless its start fails."""
        failing = self.world.plex.failing
        self.world.stop_agent()
        assert failing or self._is_at_rest()
        self.world.start_agent()

    @rule()
    def undone_by_hand(self) -> None:
        """Undo the move as an administrator, who gives up every published volume by that."""
        published = self.world.published
        with suppress(PlexodusError):
            self.world.undo()
        for volume in published:
            volume.is_given_up = True

    @rule()
    def state_backed_up(self) -> None:
        """Back up the agent's state together with the VM's disk."""
        self.world.back_up_state()

    @rule()
    def state_restored(self) -> None:
        """Restore the agent's state from the last backup. Without a backup, the state is lost."""
        self.world.restore_state()

    @rule()
    def package_purged(self) -> None:
        """Purge the agent's package. It is installed again when the agent is next started."""
        if self.world.is_agent_up:
            self.world.purge()

    @rule(seconds=STOPS)
    def plex_stops_slowly(self, seconds: float) -> None:
        """Set the seconds that each later stop of Plex takes."""
        self.world.plex.stop_takes = seconds

    @rule(failing=st.integers(0, 2))
    def plex_does_not_start(self, failing: int) -> None:
        """Have the next starts of Plex fail."""
        self.world.plex.failing = failing

    @rule(is_stubborn=st.booleans())
    def plex_does_not_stop(self, is_stubborn: bool) -> None:  # noqa: FBT001 - hypothesis' own way
        """Set whether Plex ignores each later stop."""
        self.world.plex.is_stubborn = is_stubborn

    @rule(is_other_stopped=st.booleans())
    def stop_command_stops_nothing(self, is_other_stopped: bool) -> None:  # noqa: FBT001
        """Set whether each later stop command succeeds without a stop of Plex."""
        self.world.plex.is_other_stopped = is_other_stopped

    @invariant()
    def never_two_and_nothing_lost(self) -> None:
        """Assert that the published library is what Plex left, and that Plex does not run."""
        if hasattr(self, "world"):
            for volume in self.world.published:
                self._is_moved(volume)

    def _is_moved(self, volume: Volume) -> None:
        plex = self.world.plex
        if plex.running and not plex.is_unit:
            self._have_container_stopped(volume)
        if not volume.is_given_up:
            assert cutover_library.tree(volume.library) in self._as_moved(volume)
            assert not plex.running

    def _as_moved(self, volume: Volume) -> set[str]:
        """Return what may be on a volume: the library, or that of the commit.

        A person can start a container after a commit. It can write until the agent stops it.
        """
        receipt = volume.receipt
        found = {self.world.library}
        if receipt is not None and not self.world.plex.is_unit:
            found.add(volume.committed_as.get(receipt.snapshot, self.world.library))
        return found

    def _have_container_stopped(self, volume: Volume) -> None:
        """Let the agent stop a container that a person started, because no fence prevents a start.

        If the container ignores the stop, or is hidden and was started after the last proof, two
        servers run, as docs/cutover.md says.
        """
        plex = self.world.plex
        self.world.start_agent()
        self.world.wait(max(STOP_SECONDS))
        is_not_stopped = plex.is_stubborn or plex.is_other_stopped or plex.runs_past_fence
        volume.is_given_up = plex.running and is_not_stopped

    def _is_at_rest(self) -> bool:
        """Return whether Plex runs as wanted, or is stopped because its library was moved."""
        world = self.world
        is_committed = world.control.standing().phase == "committed"
        return is_committed or world.is_purged_committed or self._is_as_wanted()

    def _is_as_wanted(self) -> bool:
        """Return whether Plex runs if it ran before. A container that was stopped may run too."""
        plex = self.world.plex
        is_restarted = plex.running and not plex.is_unit
        return self.wanted is None or plex.running == self.wanted or is_restarted

    def _rest(self) -> None:
        """Wait without pulls until leases have expired and failed starts were retried."""
        for _ in range(14):
            self.world.wait(LEASE + 1)

    def one_end(self) -> None:
        """Assert that the move ended in exactly one of the two ways."""
        world = self.world
        if world.control.standing().phase == "committed":
            assert not world.plex.running or world.plex.runs_past_fence
            assert world.control.fence.is_up()
        else:
            assert world.control.standing().phase == "idle"
            assert not world.control.fence.is_up()
            if not world.is_purged_committed:
                assert self._is_as_wanted()
                assert not world.published
