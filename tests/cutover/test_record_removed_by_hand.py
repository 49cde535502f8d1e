"""The record and the fence are gone from the state folder: removed by hand, or with the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from rig.cutover.library import tree
from rig.cutover.world import World

from shared.errors import StorageError


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a VM whose library has moved. There is a backup of the agent's state."""
    (tmp_path / "vm").mkdir()
    world = World(tmp_path / "vm", tmp_path / "elsewhere", lambda _: None)
    assert world.pull() == "done"
    world.back_up_state()
    return world


def remove(world: World, *names: str) -> None:
    """Remove files from the agent's state folder."""
    for name in names:
        Path(world.state, name).unlink()


def is_committed(world: World) -> None:
    """Restore the backup, and assert that the move is committed and Plex cannot start."""
    world.restore_state()
    world.wait(120.0)
    assert world.control.standing().phase == "committed"
    assert world.control.fence.is_whole()
    world.reboot(5.0)
    assert not world.plex.running


def test_record_and_fence_removed_by_hand(world: World) -> None:
    """The agent starts over once nothing else has vanished for a while."""
    remove(world, "cutover.json", "fence")
    world.wait(5.0)
    assert world.control.standing().phase == "committed"
    assert world.is_blocked()
    with pytest.raises(StorageError, match="gone from the agent's state folder"):
        world.control.confirmed()
    world.wait(90.0)
    assert world.control.standing().phase == "idle"
    assert not world.is_blocked()
    world.plex.begin()
    world.write()
    world.volume.is_given_up = True
    world.volume = world.fresh_volume()
    assert world.pull() == "done"
    assert tree(world.volume.library) == world.library
    world.restore_state()
    world.wait(5.0)
    assert world.control.standing().phase == "committed"
    assert not world.plex.running


@pytest.mark.parametrize("seconds", [0.0, 45.0])
def test_state_folder_is_deleted_and_restored(world: World, seconds: float) -> None:
    """A check in the middle of 'rm -rf' takes no fence down, so a restored backup counts."""
    remove(world, "cutover.json", "fence")
    world.control.guard()
    world.clock += seconds
    remove(world, "cutover.serial")
    world.control.guard()
    is_committed(world)


def test_state_folder_is_deleted_slowly(world: World) -> None:
    """A folder from which more vanishes between two checks is being deleted."""
    rest = ("a", "b", "c")
    for name in rest:
        Path(world.state, name).touch()
    remove(world, "cutover.json", "fence")
    for name in rest:
        world.control.guard()
        world.clock += 45.0
        remove(world, name)
    world.control.guard()
    is_committed(world)


def test_files_that_come_and_go_do_not_prove_a_removal(world: World) -> None:
    """Files that are back after a check were not removed: a later removal is a new one."""
    remove(world, "cutover.json", "fence")
    world.control.guard()
    world.restore_state()
    world.wait(120.0)
    remove(world, "cutover.json", "fence")
    world.control.guard()
    is_committed(world)
