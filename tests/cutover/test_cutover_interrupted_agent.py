"""An agent that is killed, or ends, at a step of a cutover, and what its last command does then."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from rig.cutover.plex import Killed
from rig.cutover.world import World

from agent.app import make_cutover
from agent.settings import Settings
from shared.errors import CutoverEnded, CutoverRefused
from shared.timestamps import boottime
from shared.wire.protocol import CutoverRequest, SnapshotRequest

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = CutoverRequest("a" * 32, "pod")
SECONDS = 20.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a VM with a running container, whose clock is the machine's."""
    (tmp_path / "vm").mkdir()
    (tmp_path / "elsewhere").mkdir()
    world = World(tmp_path / "vm", tmp_path / "elsewhere", lambda _: None)
    world.clock, world.plex.is_unit = boottime(), False
    return world


@pytest.mark.parametrize("is_used", [True, False])
def test_last_command_of_an_agent_that_was_killed_commits_nothing(
    world: World,
    is_used: bool,  # noqa: FBT001
) -> None:
    """It cannot know whether Plex has run since the scan, so no outdated library is published."""
    world.control.begin(REQUEST)
    snapshot = world.store.scan(SnapshotRequest("cold")).id
    if is_used:
        world.plex.begin()
        world.write()
        world.plex.cut()
    with patch.object(world.control.fence, "put_up", side_effect=Killed), pytest.raises(Killed):
        world.control.commit(REQUEST.id, snapshot)
    assert world.control.standing().phase == "committing"

    command = make_cutover(Settings(state=world.state), plex=world.plex)
    command.lift("the agent has ended", committed=False)

    assert world.plex.running
    assert not world.control.fence.is_up()
    with pytest.raises(CutoverEnded, match="the agent has ended"):
        world.control.commit(REQUEST.id, snapshot)


@pytest.mark.parametrize("is_used", [True, False])
def test_next_agent_ends_a_commit_unless_plex_has_run(
    world: World,
    is_used: bool,  # noqa: FBT001
) -> None:
    """An agent that was killed at the fence and started again compares the library itself."""
    world.control.begin(REQUEST)
    snapshot = world.store.scan(SnapshotRequest("cold")).id
    with patch.object(world.control.fence, "put_up", side_effect=Killed), pytest.raises(Killed):
        world.control.commit(REQUEST.id, snapshot)
    if is_used:
        world.plex.begin()
        world.write()
        world.plex.cut()
    world._start()
    world.control.tend()
    phase = world.control.standing().phase
    assert (phase == "committed") is not is_used
    assert world.plex.running is is_used


def test_agent_that_ends_waits_for_a_stop_that_is_about_to_begin(world: World) -> None:
    """No order to stop Plex is given after the agent has found that nothing is to be undone."""
    at, gate, orders = threading.Event(), threading.Event(), list[str]()
    refused, left = list[bool](), list[bool]()

    def check(_path: str) -> None:
        at.set()
        gate.wait(SECONDS)

    def begin() -> None:
        with pytest.raises(CutoverRefused, match="the agent is being stopped"):
            world.control.begin(REQUEST)
        refused.append(True)

    with (
        patch.object(world.plex, "check_fence", check),
        patch.object(world.plex, "stop", lambda *_: orders.append("stop")),
    ):
        beginning = threading.Thread(target=begin)
        beginning.start()
        assert at.wait(SECONDS)
        leaving = threading.Thread(target=lambda: left.append(world.control.leave()))
        leaving.start()
        leaving.join(0.5)
        assert not left
        gate.set()
        leaving.join(SECONDS)
        beginning.join(SECONDS)
    assert refused == [True]
    assert left == [True]
    assert orders == []
    assert world.plex.running
    assert world.control.standing().phase == "idle"
