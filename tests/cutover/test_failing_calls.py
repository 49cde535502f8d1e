"""Each call about the agent's state folder fails in turn, once or for a while.

After that, the agent continues, ends or is killed. No failure counts as an answer.
"""

from __future__ import annotations

import errno
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.cutover.world import LEASE, World
from rig.failing_calls import failing_calls

from shared.errors import PlexodusError
from shared.wire.protocol import CutoverRequest, SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUEST = CutoverRequest("a" * 32, "pod")
CALLS = (
    *("stat", "lstat", "fstat", "open", "unlink", "rename", "fsync", "mkdir", "access", "listdir"),
)
CODES = [pytest.param(errno.EIO, id="EIO"), pytest.param(errno.EACCES, id="EACCES")]
TIMES = [
    pytest.param(1, id="once"),
    pytest.param(10**6, id="until it is repaired", marks=pytest.mark.long),
]


def stopped(world: World) -> str:
    """Stop Plex and scan; return the snapshot's name."""
    world.control.begin(REQUEST)
    return world.store.scan(SnapshotRequest("cold")).id


def begin(world: World) -> Callable[[], object]:
    """Return what stops Plex."""
    return lambda: world.control.begin(REQUEST)


def undo(world: World) -> Callable[[], object]:
    """Return what undoes a cutover for its puller."""
    world.control.begin(REQUEST)
    return lambda: world.control.undo(REQUEST.id, "asked for")


def expire(world: World) -> Callable[[], object]:
    """Return what undoes a cutover whose lease has expired."""
    world.control.begin(REQUEST)
    world.clock += 2 * LEASE
    return world.control.tend


def commit(world: World) -> Callable[[], object]:
    """Return what commits a cutover."""
    name = stopped(world)
    return lambda: world.control.commit(REQUEST.id, name)


def guard(world: World) -> Callable[[], object]:
    """Return what keeps a library's Plex stopped that has moved."""
    commit(world)()
    return world.control.guard


def confirm(world: World) -> Callable[[], object]:
    """Return what answers a puller that may publish because of the answer."""
    commit(world)()
    return world.control.confirmed


def lift(world: World) -> Callable[[], object]:
    """Return what undoes a committed cutover for the administrator."""
    commit(world)()
    return world.undo


def restart(world: World) -> None:
    """Kill the agent, and start it again."""
    world.is_agent_up = False
    world.start_agent()


def leave(world: World) -> None:
    """Stop the agent, and start it again."""
    world.stop_agent()
    world.start_agent()


FOLLOWS = [
    restart,
    pytest.param(leave, marks=pytest.mark.long),
    pytest.param(lambda _: None, id="agent stays", marks=pytest.mark.long),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder in memory, because there are many VMs."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        yield Path(place)


def world(place: Path) -> World:
    """Return a VM in the new folder ``place``, whose Plex runs."""
    for name in ("vm", "elsewhere"):
        (place / name).mkdir(parents=True)
    return World(place / "vm", place / "elsewhere", lambda _: None)


@dataclass
class Fault:
    """A call that fails in a step of the agent, and what happens to the agent after that."""

    code: int
    times: int
    follow: Callable[[World], None]

    def meets(
        self, prepare: Callable[[World], Callable[[], object]], place: Path
    ) -> Iterator[tuple[World, bool, int]]:
        """Yield a VM some time after the step, and whether the step has returned, for each call.

        Each VM has a folder of its own in ``place``. The number of the call comes last.
        """
        number = 0
        for number, fault in failing_calls(self.code, CALLS, self.times):
            vm, is_done = world(place / str(number)), False
            step = prepare(vm)
            with suppress(PlexodusError, OSError), fault:
                step()
                is_done = True
            self.follow(vm)
            vm.wait(3 * LEASE)
            yield vm, is_done, number
        assert number > 3


@pytest.fixture(params=FOLLOWS)
def fault(request: pytest.FixtureRequest, code: int, times: int) -> Fault:
    """Return a fault with each consequence."""
    return Fault(code, times, request.param)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("prepare", [begin, undo, expire, commit, guard, confirm, lift])
def test_step_meets_failing_calls(
    place: Path, prepare: Callable[[World], Callable[[], object]], fault: Fault
) -> None:
    """In the end, Plex runs, or its library has moved and the fence is up; as was answered."""
    moved, back = ("committed", False, True), ("idle", True, False)
    for vm, is_done, number in fault.meets(prepare, place):
        state = vm.control.standing().phase, vm.plex.running, vm.control.fence.is_up()
        assert state in (moved, back), number
        if is_done or prepare in (guard, confirm):
            assert state == (moved if prepare in (commit, guard, confirm) else back), number


def lift_unused(world: World) -> Callable[[], object]:
    """Return what undoes the committed cutover of a Plex that did not run before it."""
    world.plex.cut()
    return lift(world)


def commit_beside_plex(world: World) -> Callable[[], object]:
    """Return what commits a cutover after a person has started Plex."""
    step = commit(world)
    world.plex.begin()
    return step


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("prepare", [lift_unused, commit_beside_plex])
def test_fence_that_cannot_be_examined_is_not_left_behind(
    place: Path, prepare: Callable[[World], Callable[[], object]], fault: Fault
) -> None:
    """A cutover has not ended as long as a fence may keep Plex from its next start."""
    for vm, is_done, number in fault.meets(prepare, place):
        phase, is_up = vm.control.standing().phase, vm.control.fence.is_up()
        assert (phase, is_up) in (("committed", True), ("idle", False)), number
        assert phase == "idle" or not is_done, number
        assert vm.plex.running == (prepare is commit_beside_plex), number
