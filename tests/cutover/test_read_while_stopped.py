"""The delta alone decides how long Plex is down, also after a pass that set all attributes."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from rig.cutover.deltas import RACY
from rig.cutover.library import DATABASE
from rig.cutover.volume import MOVE, Request
from rig.cutover.world import World
from rig.mounts import NEEDS_ROOT
from rig.oracle import rsync_differences

from initpuller.pull.options import Mode
from initpuller.volume.records import transitions
from initpuller.volume.records.state import load_state
from initpuller.volume.staging import finishing
from shared.frames.file_digests import hash_descriptor

if TYPE_CHECKING:
    from pathlib import Path

OWNER = 12_345


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a VM whose library is old enough for a delta, and two volumes."""
    (tmp_path / "vm").mkdir()
    (tmp_path / "elsewhere").mkdir()
    world = World(tmp_path / "vm", tmp_path / "elsewhere", lambda _: None)
    time.sleep(RACY)
    return world


@pytest.fixture
def read_back(world: World, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Collect the names of the files that are read back from the volume with Plex stopped."""
    found: set[str] = set()

    def read(fd: int) -> bytes:
        """Note the name of the open file, and read it."""
        if not world.plex.running:
            found.add(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        return hash_descriptor(fd)

    monkeypatch.setattr(finishing, "hash_descriptor", read)
    return found


def must_set_attributes(world: World) -> bool:
    """Return whether the record says that all attributes must be set again."""
    state = load_state(world.volume.layout)
    assert state is not None
    return state.reown


def owners(world: World) -> set[tuple[int, int]]:
    """Return the owners of everything that was published."""
    published = world.volume.library
    infos = [path.lstat() for path in (published, *published.rglob("*"))]
    return {(info.st_uid, info.st_gid) for info in infos}


def test_move_after_a_rehearsal_reads_only_changes_with_plex_down(
    world: World, read_back: set[str]
) -> None:
    """A trial of the copy does not have the whole volume read while Plex is down."""
    assert world.pull(Request(Mode.REHEARSE)) == "done"

    assert world.pull() == "done"

    assert read_back <= {os.path.basename(DATABASE)}
    assert rsync_differences(world.vm / "Library", world.volume.library) == []


@NEEDS_ROOT
def test_move_with_another_owner_reads_only_changes_with_plex_down(
    world: World, read_back: set[str]
) -> None:
    """Another owner is given to all files while Plex runs, and none is read after that."""
    assert world.pull(Request(Mode.PRESEED)) == "done"

    assert world.pull(Request(owner=f"{OWNER}:{OWNER}")) == "done"

    assert read_back <= {os.path.basename(DATABASE)}
    assert owners(world) == {(OWNER, OWNER)}
    assert rsync_differences(world.vm / "Library", world.volume.library, owner=False) == []


@NEEDS_ROOT
def test_killed_before_the_record_of_all_attributes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill right before the record leaves no file with the earlier owner."""
    assert world.pull(Request(Mode.PRESEED, owner=f"{OWNER}:{OWNER}")) == "done"

    def dies(*_: object) -> None:
        """End the puller as a kill does."""
        world.puller.is_dead = True
        world.puller.step()

    with monkeypatch.context() as patched:
        patched.setattr(transitions, "attributes_set", dies)
        assert world.pull(Request(Mode.PRESEED)) == "killed"
    assert must_set_attributes(world)

    assert world.pull(Request(Mode.PRESEED)) == "done"
    assert not must_set_attributes(world)
    assert world.pull(MOVE) == "done"
    assert rsync_differences(world.vm / "Library", world.volume.library) == []
