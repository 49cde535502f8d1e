"""Two copies of a cutover's record, one of which is outdated, damaged, lost, or in memory only.

Nothing is published because of a record that a power loss, or the loss of one copy, would undo.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from rig.cutover.world import LEASE, World

from agent.cutover import record
from agent.cutover.record import CutoverRecord, witness_folder
from shared import durable
from shared.errors import StorageError
from shared.wire.protocol import CutoverRequest, SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST = CutoverRequest("a" * 32, "pod")
COMMITTED, IDLE = b'"phase":"committed"', b'"phase":"idle"'


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a VM with a running container: nothing but the agent keeps it stopped."""
    (tmp_path / "vm").mkdir()
    (tmp_path / "elsewhere").mkdir()
    world = World(tmp_path / "vm", tmp_path / "elsewhere", lambda _: None)
    world.plex.is_unit = False
    return world


@pytest.fixture
def snapshot(world: World) -> str:
    """Stop Plex, and return the name of a snapshot that can be committed."""
    world.control.begin(REQUEST)
    return world.store.scan(SnapshotRequest("cold")).id


def own(world: World) -> Path:
    """Return the record in the state folder."""
    return Path(world.state, "cutover.json")


def copy(world: World) -> Path:
    """Return the witness's copy of it."""
    return Path(witness_folder(world.state), "cutover.json")


def full(path: Path, content: bytes) -> Callable[..., None]:
    """Return a ``write_durably`` for which the disk of ``path`` has no room for ``content``."""

    def write_durably(where: str, what: bytes, mode: int = 0o600) -> None:
        if where == str(path) and content in what:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        durable.write_durably(where, what, mode)

    return write_durably


class Syncs:
    """Syncs of folders. The first one after a write of ``content`` to ``path`` fails."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path, self._content = path, content
        self.has_failed = False
        self.since: list[str] = []
        """Folders that were synced after that."""

    def __call__(self, folder: str) -> None:
        """Sync a folder."""
        if not self.has_failed and self._content in self._path.read_bytes():
            self.has_failed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.has_failed:
            self.since.append(folder)


def restart(world: World) -> None:
    """Kill the agent, and start it again."""
    world.is_agent_up = False
    world.start_agent()


def test_copy_that_had_no_room_is_written_before_the_commit_is_answered(
    world: World, snapshot: str
) -> None:
    """A disk that is full for the copy delays the answer, so a later loss of the state is safe."""
    with patch.object(record, "write_durably", full(copy(world), COMMITTED)):
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                world.control.commit(REQUEST.id, snapshot)
            with pytest.raises(OSError, match="No space"):
                world.control.confirmed()
    assert COMMITTED not in copy(world).read_bytes()
    assert world.control.commit(REQUEST.id, snapshot).phase == "committed"
    shutil.rmtree(world.state)
    world.clock += 100 * LEASE
    restart(world)
    world.wait(2 * LEASE)
    assert world.control.standing().phase == "committed"
    assert not world.plex.running


def test_outdated_copy_is_renewed_without_a_request(world: World, snapshot: str) -> None:
    """After a commit nothing else is written, so the agent's regular check renews the copy."""
    with (
        patch.object(record, "write_durably", full(copy(world), COMMITTED)),
        pytest.raises(OSError, match="No space"),
    ):
        world.control.commit(REQUEST.id, snapshot)
    world.control.guard()
    assert copy(world).read_bytes() == own(world).read_bytes()
    assert "record" not in world.told


def test_lost_copy_is_renewed(world: World, snapshot: str) -> None:
    """A witness folder that is lost as a whole is back with record and fence after two checks."""
    world.control.commit(REQUEST.id, snapshot)
    shutil.rmtree(witness_folder(world.state))
    world.control.guard()
    world.control.guard()
    assert copy(world).read_bytes() == own(world).read_bytes()
    assert copy(world).with_name("fence").exists()


@pytest.mark.parametrize("has_witness", [True, False])
def test_commit_that_was_not_synced_is_written_again_before_it_is_answered(
    world: World,
    has_witness: bool,  # noqa: FBT001
) -> None:
    """A record only in the page cache is no commit: a power loss would undo a published move."""
    if not has_witness:
        Path(witness_folder(world.state)).touch()
    world.control.begin(REQUEST)
    snapshot = world.store.scan(SnapshotRequest("cold")).id
    with patch.object(durable, "fsync_folder", Syncs(own(world), COMMITTED)) as syncs:
        with pytest.raises(OSError, match="Input/output error"):
            world.control.commit(REQUEST.id, snapshot)
        assert COMMITTED in own(world).read_bytes()
        assert world.control.commit(REQUEST.id, snapshot).phase == "committed"
        assert world.state in syncs.since


def test_commit_of_a_process_that_was_killed_is_written_again_before_it_is_answered(
    world: World, snapshot: str
) -> None:
    """The next agent does not know whether the last one has synced what it has renamed."""
    with (
        patch.object(durable, "fsync_folder", Syncs(own(world), COMMITTED)),
        pytest.raises(OSError, match="Input/output error"),
    ):
        world.control.commit(REQUEST.id, snapshot)
    world._start()
    with patch.object(durable, "fsync_folder", Syncs(own(world), COMMITTED)) as syncs:
        syncs.has_failed = True
        assert world.control.commit(REQUEST.id, snapshot).phase == "committed"
        assert world.state in syncs.since


def test_undo_that_was_not_synced_is_written_again_before_a_puller_relies_on_it(
    world: World, snapshot: str
) -> None:
    """After a power loss, an undo that is not recorded would start Plex beside a published copy."""
    assert snapshot
    world.control.undo(REQUEST.id, "asked for")
    world.clock += 10
    with patch.object(durable, "fsync_folder", Syncs(own(world), IDLE)) as syncs:
        with pytest.raises(OSError, match="Input/output error"):
            world.control.tend()
        assert world.control.confirmed().phase == "idle"
        assert world.state in syncs.since


def test_record_removed_by_hand_while_the_disk_is_full_leaves_no_fence(
    world: World, snapshot: str
) -> None:
    """A removal that cannot be recorded at once is complete once there is room."""
    world.control.commit(REQUEST.id, snapshot)
    own(world).unlink()
    Path(world.state, "fence").unlink()
    world.control.guard()
    world.clock += LEASE
    with (
        patch.object(record, "write_durably", full(copy(world), IDLE)),
        pytest.raises(OSError, match="No space"),
    ):
        world.control.guard()
    world.control.guard()
    assert world.control.standing().phase == "idle"
    assert not world.control.fence.is_up()


def test_fence_that_was_not_synced_is_put_up_again(world: World, snapshot: str) -> None:
    """A fence is not whole because its file is there: a power loss would take it down."""
    world.control.commit(REQUEST.id, snapshot)
    world.control.fence.take_down()
    fence = Path(world.state, "fence")
    with patch.object(durable, "fsync_folder", side_effect=OSError(errno.EIO, "lost")):
        with pytest.raises(OSError, match="lost"):
            world.control.guard()
        assert fence.exists()
        assert not world.control.fence.is_whole()
    world.control.guard()
    assert world.control.fence.is_whole()


def test_plex_is_stopped_again_although_the_record_cannot_be_repaired(
    world: World, snapshot: str
) -> None:
    """A state folder that takes no record is reported after the second server is stopped."""
    world.control.commit(REQUEST.id, snapshot)
    own(world).unlink()
    own(world).mkdir()
    world.plex.begin()
    with pytest.raises(OSError, match="Is a directory"):
        world.control.guard()
    assert not world.plex.running


def flip(path: Path) -> None:
    """Flip the highest bit of a letter, which is no UTF-8 then."""
    content = bytearray(path.read_bytes())
    content[content.index(b"pod")] ^= 0x80
    path.write_bytes(content)


def make_unreadable(path: Path) -> None:
    """Have each read and each write of a file fail, as on a disk with damaged blocks."""
    path.unlink()
    path.mkdir()


DAMAGES = [flip, make_unreadable, lambda path: path.write_bytes(b"")]


@pytest.mark.parametrize("which", [own, copy])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("is_restarted", [True, False])
def test_intact_copy_of_a_damaged_record_starts_plex(
    world: World,
    snapshot: str,
    which: Callable[[World], Path],
    damage: Callable[[Path], None],
    is_restarted: bool,  # noqa: FBT001
) -> None:
    """One damaged copy does not keep Plex stopped after the end of the lease."""
    assert snapshot
    damage(which(world))
    world.clock += 2 * LEASE
    if is_restarted:
        world._start()
    for _ in range(10):
        with suppress(OSError):  # that the damaged copy cannot be replaced
            world.control.tend()
        world.clock += 1
    assert world.plex.running


@pytest.mark.parametrize("which", [own, copy])
@pytest.mark.parametrize("damage", DAMAGES)
def test_intact_copy_of_a_damaged_record_keeps_plex_stopped(
    world: World, snapshot: str, which: Callable[[World], Path], damage: Callable[[Path], None]
) -> None:
    """One damaged copy does not end a move that is committed."""
    world.control.commit(REQUEST.id, snapshot)
    damage(which(world))
    world.plex.begin()
    world.clock += 2 * LEASE
    restart(world)
    assert not world.plex.running
    assert world.control.standing().phase == "committed"


@pytest.mark.parametrize("damage", DAMAGES)
def test_plex_is_started_although_both_copies_are_damaged_since(
    world: World, snapshot: str, damage: Callable[[Path], None]
) -> None:
    """An agent that has stopped Plex knows that without its disk."""
    assert snapshot
    for each in (own(world), copy(world)):
        damage(each)
    world.clock += 2 * LEASE
    for _ in range(10):
        with suppress(OSError):
            world.control.tend()
        world.clock += 1
    assert world.plex.running


@pytest.mark.parametrize("is_lost", [True, False])
def test_damaged_record_without_an_intact_copy_is_not_the_absence_of_a_cutover(
    world: World,
    snapshot: str,
    is_lost: bool,  # noqa: FBT001
) -> None:
    """A new agent that cannot know whether the library has moved says so."""
    world.control.commit(REQUEST.id, snapshot)
    flip(copy(world))
    if is_lost:
        own(world).unlink()
    else:
        flip(own(world))
    with pytest.raises(StorageError, match="cannot be read"):
        CutoverRecord(world.state).load()


def test_each_flipped_bit_of_a_record_leaves_it_readable_or_damaged(
    world: World, snapshot: str
) -> None:
    """No bit raises an error that nobody expects: only an intact copy of it counts then."""
    assert snapshot
    path, content = own(world), own(world).read_bytes()
    intact = CutoverRecord(world.state).load()
    for bit in range(len(content) * 8):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert CutoverRecord(world.state).load().serial >= intact.serial
