"""Both real state machines of a cutover, with every fault interleaved: one of two ends, always.

Either it is committed, the VM's Plex is down and stays so, and the volume has, or can be given
without the agent, exactly what Plex left. Or it is not, and the VM's Plex runs if it ran before.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rig.cutoverworld import LEASE, World

from shared.errors import PlexodusError

if TYPE_CHECKING:
    from rig.cutoverplex import Lifeline

seen: Counter[str] = Counter()
"""How often what happened, in all runs."""

FATES = (
    *["nothing"] * 14,
    "request lost",
    "answer lost",
    "agent killed",
    "agent killed later",
    "agent stopped",
    "agent back",
    "agent's disk full",
    "agent's disk free",
    "snapshot gone",
    "puller killed",
    "puller killed later",
    "time",
    "time",
    "plex writes",
    "somebody starts plex",
    "somebody starts plex later",
    "plex runs for a while",
    "reboot",
)
SECONDS = st.sampled_from([1.0, LEASE / 4, LEASE - 1, LEASE + 1, 10 * LEASE])
UPTIMES = st.sampled_from([5.0, 40.0, 2000.0])
STEPS = st.integers(0, 12)


class CutoverMachine(RuleBasedStateMachine):
    """Runs of the puller, one after the other, and what goes on around them."""

    parent = ""
    """The folder in which each story has one of its own."""

    @initialize(is_running=st.booleans())
    def begin(self, is_running: bool) -> None:  # noqa: FBT001 - hypothesis' own way
        """A VM whose Plex runs, or not."""
        self.place = Path(tempfile.mkdtemp(dir=self.parent))
        self.data: Any = None
        self.world = World(self.place, self._fate)
        self.world.plex.running = self.wanted = is_running

    def teardown(self) -> None:
        """When all has come to rest: one of the two ends; and a last pull that nothing disturbs."""
        if not hasattr(self, "world"):
            return
        self.data = None
        self.world.plex.is_stubborn, self.world.plex.failing = False, 0
        self.world.is_disk_full = self.world.is_snapshot_gone = False
        self.world.agent.left = self.world.agent.visitor = None
        self.world.start_agent()
        self._rest()
        self.one_end()
        self.world.wait(3600.0)  # the longest pause after stops that came to nothing
        ended = self.world.pull()
        assert ended == "done", ended
        assert self.world.published == self.world.version
        assert self.world.control.standing().phase == "committed"
        assert not self.world.plex.running
        self.world.reboot(5.0)
        assert not self.world.plex.running
        shutil.rmtree(self.place)

    def _fate(self, where: str) -> None:
        """What happens at this point of a pull."""
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
        else:
            self._turn(what)

    def _process(self, what: str) -> Lifeline:
        return self.world.agent if what.startswith("agent") else self.world.puller

    def _turn(self, what: str) -> None:
        if what == "agent back":
            self.world.start_agent()
        elif what == "agent stopped":
            self.world.stop_agent()
        elif what.startswith("agent's disk"):
            self.world.is_disk_full = what.endswith("full")
        elif what == "snapshot gone":
            self.world.is_snapshot_gone = True
        elif what == "plex writes":
            self.world.write()
        elif what == "somebody starts plex":
            self.somebody_starts_plex()
        elif what == "somebody starts plex later":
            self.world.agent.visitor = self.data.draw(STEPS), self.somebody_starts_plex
        elif what == "plex runs for a while" and not self.world.plex.running:
            self.world.plex.begin()
            self.world.write()
            self.world.plex.running = False

    @rule(data=st.data())
    def pull(self, data: Any) -> None:  # noqa: ANN401 - hypothesis' own
        """One run of the puller, with faults at any of its points."""
        self.data = data
        ended = self.world.pull()
        self.data = None
        seen[f"pull: {ended}"] += 1

    @rule(data=st.data())
    def pull_again(self, data: Any) -> None:  # noqa: ANN401 - hypothesis' own
        """As kubelet does at once, and again."""
        self.pull(data)

    @rule(data=st.data())
    def pull_until_ready(self, data: Any) -> None:  # noqa: ANN401 - hypothesis' own
        """A run that shall not end the move, whatever an earlier one has begun."""
        self.data, published = data, self.world.published
        ended = self.world.pull(until_ready=True)
        self.data = None
        seen[f"until ready: {ended}"] += 1
        assert published is not None or self.world.volume_phase != "committing" or ended != "done"

    @rule(seconds=SECONDS)
    def time(self, seconds: float) -> None:
        """Nobody does anything."""
        self.world.wait(seconds)

    @rule()
    def plex_writes(self) -> None:
        """If it runs."""
        self.world.write()

    @rule()
    def somebody_starts_plex(self) -> None:
        """Who knows nothing of the move; the fence keeps them from it."""
        self.world.plex.begin()
        self.wanted = self.wanted or self.world.plex.running

    @rule(uptime=UPTIMES)
    def reboot(self, uptime: float) -> None:
        """Of the VM, where Plex is started at boot."""
        self.world.reboot(uptime)
        self.wanted = True

    @rule(steps=STEPS)
    def agent_killed(self, steps: int) -> None:
        """Over its own work, or between; and started again."""
        self.world.agent.left = steps
        self.world.tend()
        self.world.is_agent_up = False
        self.world.start_agent()

    @rule()
    def agent_stopped(self) -> None:
        """By the administrator, for a while: Plex runs then, unless it does not start."""
        failing = self.world.plex.failing
        self.world.stop_agent()
        assert failing or self._is_at_rest()
        self.world.start_agent()

    @precondition(lambda self: self.world.volume_phase not in {"publishing", "none"})
    @rule()
    def undone_by_hand(self) -> None:
        """By an administrator who has thought better of it, before anything was published."""
        with suppress(PlexodusError):
            self.world.undo()

    @rule(failing=st.integers(0, 2))
    def plex_does_not_start(self, failing: int) -> None:
        """The next times."""
        self.world.plex.failing = failing

    @precondition(lambda self: not self.world.plex.is_stubborn)
    @rule()
    def plex_does_not_stop(self) -> None:
        """From now on."""
        self.world.plex.is_stubborn = True

    @precondition(lambda self: self.world.plex.is_stubborn)
    @rule()
    def plex_stops_again(self) -> None:
        """When asked."""
        self.world.plex.is_stubborn = False

    @invariant()
    def never_two_and_nothing_lost(self) -> None:
        """What is published is what Plex left; it does not run any more."""
        if hasattr(self, "world") and self.world.published is not None:
            assert self.world.published == self.world.version
            assert not self.world.plex.running

    def _is_at_rest(self) -> bool:
        """Whether Plex is stopped for nobody."""
        phase = self.world.control.standing().phase
        return phase == "committed" or self.world.plex.running == self.wanted

    def _rest(self) -> None:
        """Nobody pulls: leases expire, and starts that fail are tried again."""
        for _ in range(4):
            self.world.wait(LEASE + 1)

    def one_end(self) -> None:
        """Exactly one of the two."""
        world = self.world
        if world.control.standing().phase == "committed":
            assert not world.plex.running
            assert world.control.fence.is_up()
            assert world.volume_phase in {"committing", "publishing", "none"}
            there = world.staged if world.published is None else world.published
            assert there == world.version
        else:
            assert world.control.standing().phase == "idle"
            assert world.plex.running == self.wanted
            assert world.published is None
            assert not world.control.fence.is_up()


def run(examples: int, steps: int) -> int:
    """How many things happened in ``examples`` stories of ``steps`` steps."""
    seen.clear()
    shared_memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="plexodus-model-", dir=shared_memory) as parent:
        CutoverMachine.parent = parent
        run_state_machine_as_test(
            CutoverMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    for what, count in sorted(seen.items()):
        print(f"{count:6} {what}")  # noqa: T201 - how far it went
    assert {"pull: done", "pull: killed", "pull: AgentUnreachable"} <= seen.keys()
    return seen.total()


def test_one_of_two_ends() -> None:
    """As many stories as it takes to find each line of the agent's steps that is left out."""
    run(1500, 12)


@pytest.mark.long
def test_one_of_two_ends_of_many_stories() -> None:
    """The same, for minutes."""
    print(f"{run(10_000, 14)} faults and turns in 10000 stories")  # noqa: T201 - people ask for it
