"""Staging: a frame is written whole or not at all, and the tree becomes exactly the library."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.two_sides import TwoSides

from initpuller.volume.fidelity import AttributePolicy, Fidelity
from initpuller.volume.records import journal
from initpuller.volume.records.state import load_state
from initpuller.volume.staging import finishing
from initpuller.volume.staging.blocks import Block, Patch, keep_block, patch_block, read_block
from initpuller.volume.staging.finishing import Extent
from initpuller.volume.staging.unfinished import Unfinished
from initpuller.volume.staging.unpack import Destination, unpack_frame
from shared.digest import sha256, sha256_of_all
from shared.errors import FrameDamaged, StorageError
from shared.frames.pieces import PIECE, piece_digests
from shared.frames.plan import FRAME
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from initpuller.volume.staging.staging import Staging
    from initpuller.volume.staging.unpack import FetchedFrame

BLOCKS = 3


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a library with every kind of entry, with modes, times, xattrs and holes."""
    library = tmp_path / "Library"
    content = random.Random(4)  # noqa: S311 - reproducible
    (library / "folder" / "below").mkdir(parents=True)
    for number in range(3):
        (library / "folder" / f"{number}").write_bytes(content.randbytes(1000 * number))
    (library / "folder" / "below" / "readonly").write_bytes(b"readonly")
    (library / "folder" / "below" / "readonly").chmod(0o400)
    with (library / "folder" / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(512 * 1024)
        file.write(b"in the middle")
    os.setxattr(library / "folder" / "1", "user.plex", b"value")
    (library / "folder" / "link").symlink_to("elsewhere")
    (library / "folder" / "zhard").hardlink_to(library / "folder" / "0")
    (library / "large").write_bytes(content.randbytes((BLOCKS - 1) * FRAME + 17))
    for path in (library / "folder" / "2", library / "folder" / "below", library / "folder"):
        os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    return library


@pytest.fixture
def sides(tmp_path: Path, library: Path) -> TwoSides:
    """Return the library and an empty volume."""
    return TwoSides(tmp_path / "sides", library)


@pytest.fixture
def staging(sides: TwoSides) -> Iterator[Staging]:
    """Return empty staging for a cold snapshot."""
    staging = sides.begin(sides.scan())
    yield staging
    staging.close()


def first_frame(sides: TwoSides, staging: Staging) -> tuple[Destination, FetchedFrame]:
    """Return the frame with the small files, and its destination."""
    listing = sides.scan()
    into = Destination(staging.fd, staging.policy, staging.digests)
    return into, sides.fetch(listing, 0)


def large_blocks(sides: TwoSides, staging: Staging) -> list[tuple[Block, FetchedFrame]]:
    """Return all blocks of the large file, as they arrive."""
    listing, found = sides.scan(), []
    for frame in listing.manifest.plan:
        [entry] = listing.manifest.entries(frame.first, 1)
        if entry.path == b"Library/large":
            found.append((Block(frame, entry), sides.fetch(listing, frame.number)))
    assert len(found) == BLOCKS
    return found


def test_all_frames_become_the_library(sides: TwoSides) -> None:
    """After all frames are unpacked, rsync finds no difference, and holes stay holes."""
    staging = sides.bring(sides.scan())
    assert rsync_differences(sides.library, sides.staged) == []
    assert (sides.staged / "folder" / "sparse").stat().st_blocks * 512 < 1 << 19
    staging.close()


def test_gnu_tar_unpacks_the_same(sides: TwoSides, staging: Staging, tmp_path: Path) -> None:
    """GNU tar finds the same files in the bytes of a frame."""
    into, fetched = first_frame(sides, staging)
    unpack_frame(into, fetched)
    other = tmp_path / "tar"
    other.mkdir()
    subprocess.run(["tar", "xf", "-", "-C", other], input=fetched.tar, check=True)
    for entry in fetched.entries:
        path = os.fsdecode(entry.path)
        if entry.kind is Kind.FILE:
            ours = sides.staged.parent / path
            assert ours.read_bytes() == (other / path).read_bytes()
            assert int(ours.stat().st_mtime) == int((other / path).stat().st_mtime)
            assert ours.stat().st_mode == (other / path).stat().st_mode


def test_digests_of_a_frame(sides: TwoSides, staging: Staging) -> None:
    """Each small file's digest is stored under its own number, and no other digest is."""
    into, fetched = first_frame(sides, staging)
    unpack_frame(into, fetched)
    stored = list(staging.digests)
    for number, entry in enumerate(staging.manifest):
        content = sides.library.parent / os.fsdecode(entry.path)
        is_inside = entry.kind is Kind.FILE and entry in fetched.entries
        digest = hashlib.sha256(content.read_bytes()).digest() if is_inside else None
        assert stored[number] == digest, entry.path


def test_damaged_frame_writes_nothing(sides: TwoSides, staging: Staging) -> None:
    """If any bit of a frame is wrong, no file of the frame is written."""
    into, fetched = first_frame(sides, staging)
    tar = bytearray(fetched.tar)
    tar[tar.index(b"in the middle")] ^= 1
    with pytest.raises(FrameDamaged):
        unpack_frame(into, replace(fetched, tar=bytes(tar)))
    assert os.listdir(staging.fd) == []
    assert set(staging.digests) == {None}


@pytest.mark.parametrize("leftover", ["file", "symlink", "folder", "hard link"])
def test_leftover_of_a_killed_run_is_replaced(
    sides: TwoSides, staging: Staging, tmp_path: Path, leftover: str
) -> None:
    """A symlink in place of a file is replaced, and not written through."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    place = sides.staged / "folder" / "2"
    place.parent.mkdir(parents=True)
    if leftover == "file":
        place.write_bytes(bytes(100_000))
    elif leftover == "symlink":
        place.symlink_to(elsewhere)
    elif leftover == "hard link":
        place.hardlink_to(elsewhere)
    else:
        (place / "below").mkdir(parents=True)
    unpack_frame(*first_frame(sides, staging))
    assert place.read_bytes() == (sides.library / "folder" / "2").read_bytes()
    assert elsewhere.read_bytes() == b"precious"


def test_what_a_frame_leaves_for_later(sides: TwoSides, staging: Staging) -> None:
    """A frame leaves hard links, their folders and folders of the next frame for later."""
    unpacked = unpack_frame(*first_frame(sides, staging))
    late = {os.fsdecode(entry.path) for _, entry in unpacked.late}
    assert late == {"Library", "Library/folder", "Library/folder/zhard"}
    below = (sides.staged / "folder" / "below").stat()
    assert below.st_mtime_ns == 1_234_567_890_123_456_789
    assert not (sides.staged / "folder" / "zhard").exists()


def test_blocks_in_any_order(sides: TwoSides, staging: Staging) -> None:
    """With the last block first, the file has its length at once and its content at the end."""
    into = Destination(staging.fd, staging.policy, staging.digests)
    for _, fetched in reversed(large_blocks(sides, staging)):
        unpack_frame(into, fetched)
        assert (sides.staged / "large").stat().st_size == (BLOCKS - 1) * FRAME + 17
    assert (sides.staged / "large").read_bytes() == (sides.library / "large").read_bytes()


def test_pieces_are_patched_into_a_block(sides: TwoSides, staging: Staging) -> None:
    """Only the given pieces are written, and the block has the announced digest."""
    into = Destination(staging.fd, staging.policy, staging.digests)
    blocks = large_blocks(sides, staging)
    for _, fetched in blocks:
        unpack_frame(into, fetched)
    block = blocks[1][0]
    old = read_block(staging.fd, block)
    first, last = b"new".ljust(PIECE, b"."), b"!" * PIECE
    new = first + old[PIECE:-PIECE] + last
    pieces = [new[start : start + PIECE] for start in range(0, FRAME, PIECE)]
    tag = sha256_of_all(map(sha256, pieces)).hex()
    patch = Patch([(0, PIECE), (FRAME - PIECE, PIECE)], first + last, tag)

    unpacked = patch_block(staging.fd, block, piece_digests(old), patch)

    assert unpacked.digest == tag
    assert unpacked.late == []
    assert read_block(staging.fd, block) == new
    assert read_block(staging.fd, blocks[0][0]) == blocks[0][1].tar[-FRAME:]


def test_wrong_pieces_leave_the_block_alone(sides: TwoSides, staging: Staging) -> None:
    """If the result would not have the announced digest, nothing is written."""
    into = Destination(staging.fd, staging.policy, staging.digests)
    blocks = large_blocks(sides, staging)
    for _, fetched in blocks:
        unpack_frame(into, fetched)
    block = blocks[2][0]
    old = read_block(staging.fd, block)
    patch = Patch([(0, PIECE)], b"n" * PIECE, "0" * 64)
    with pytest.raises(FrameDamaged):
        patch_block(staging.fd, block, piece_digests(old), patch)
    assert (sides.staged / "large").read_bytes() == (sides.library / "large").read_bytes()


def test_first_block_gives_a_kept_file_its_length(sides: TwoSides, staging: Staging) -> None:
    """A file that became shorter is truncated, though no block is written."""
    block, fetched = large_blocks(sides, staging)[0]
    (sides.staged).mkdir()
    (sides.staged / "large").write_bytes(bytes(9 * FRAME))
    unpacked = keep_block(staging.fd, block, fetched.tag)
    assert unpacked.is_held
    assert (sides.staged / "large").stat().st_size == block.entry.size


def test_volume_that_rounds_times_and_drops_xattrs(sides: TwoSides) -> None:
    """Entries get the attributes that the volume keeps, and are compared with these."""
    sides.policy = AttributePolicy(
        sides.policy.ownership, Fidelity(time_step_ns=10**9, xattr_bytes=0)
    )
    staging = sides.bring(sides.scan())
    assert os.listxattr(sides.staged / "folder" / "1") == []
    info = (sides.staged / "folder" / "2").stat()
    assert info.st_mtime_ns == 1_234_567_890_000_000_000
    staging.close()


def test_resumed_run_finds_what_is_wrong(sides: TwoSides) -> None:
    """A resumed run finds missing, extra and retyped entries and wrong modes."""
    listing = sides.scan()
    staging = sides.bring(listing)
    (sides.staged / "stranger").write_bytes(b"")
    (sides.staged / "large").unlink()
    (sides.staged / "folder" / "below" / "readonly").unlink()
    (sides.staged / "folder" / "below" / "readonly").mkdir()
    found = sides.begin(listing, staging).finish(Unfinished(listing.manifest))
    wrong = {line.partition(":")[0] for line in found}
    assert wrong == {"Library/stranger", "Library/large", "Library/folder/below/readonly"}


def test_xattrs_that_cannot_be_read_back_do_not_count_as_checked(
    sides: TwoSides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that refuses the xattrs of an open file ends the pull, although files open."""
    listing = sides.scan()
    staging = sides.bring(listing)

    def refused(_: int) -> dict[str, bytes]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    again = sides.begin(listing, staging)
    monkeypatch.setattr(finishing, "read_xattrs", refused)
    with pytest.raises(StorageError, match="Permission denied"):
        finishing.finish_attributes(
            again.fd, reversed(again.manifest), again.policy.ownership, Extent.ALL
        )


def test_moved_on_from_another_snapshot(sides: TwoSides) -> None:
    """Everything that the library lost is removed, of whatever kind it is now."""
    staging = sides.bring(sides.scan())
    folder = sides.library / "folder"
    shutil.rmtree(folder / "below")
    (folder / "below").symlink_to("0")
    (folder / "zhard").unlink()
    (folder / "link").unlink()
    (folder / "link").mkdir()
    os.removexattr(folder / "1", "user.plex")
    (sides.library / "large").rename(sides.library / "renamed")
    sides.bring(sides.scan(), staging).close()
    assert rsync_differences(sides.library, sides.staged) == []


def test_old_records_hold_until_the_new_ones_are_whole(
    sides: TwoSides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the new journal cannot be written, the state still names the old snapshot."""
    staging = sides.bring(sides.scan())
    old = staging.state.snapshot
    (sides.library / "large").write_bytes(b"small now")
    new = sides.scan()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.Journal, "carried", full)
    with pytest.raises(Exception, match="No space"):
        sides.begin(new, staging)
    state = load_state(sides.layout)
    assert state is not None
    assert state.snapshot.id == old.id
    assert journal.count_done(sides.layout.journal(old.id), old.frames) == old.frames
    assert os.path.exists(sides.layout.manifest(old.id))


def test_records_of_the_old_snapshot_are_removed(sides: TwoSides) -> None:
    """Once the state names the new snapshot, nothing of the old one is left."""
    staging = sides.bring(sides.scan())
    old = staging.state.snapshot.id
    (sides.library / "new").write_bytes(b"new")
    sides.bring(sides.scan(), staging).close()
    assert not [name for name in os.listdir(sides.layout.folder) if old in name]


def test_held_frame_of_an_earlier_release(sides: TwoSides, staging: Staging) -> None:
    """An older release's journal line for a held small-file frame has the frame fetched."""
    staging.journal.carried([], [(0, "0" * 64)])
    again = journal.Journal(
        sides.layout.journal(staging.state.snapshot.id), len(staging.manifest.plan)
    )
    assert list(again.held()) == [0]
    assert 0 in list(again.missing())
    again.close()


_LATE = """
import os, sys
from bench.processes import peak_kib
from initpuller.volume.staging.blocks import Unpacked
from initpuller.volume.staging.unfinished import Unfinished
from rig.hostile.agent import entry, folder
from shared.frames.manifest_file import write_manifest
from shared.tree.manifest import Kind

def entries():
    yield folder(b"Library")
    for number in range(40_000):
        for path in (b"", b"/Contents", b"/Contents/_stored"):
            yield folder(b"Library/%05d.bundle%s" % (number, path))

manifest = write_manifest(sys.argv[1], b"Library", entries())
before, left = peak_kib(os.getpid()), Unfinished(manifest)
for frame in range(40_000):
    first = 1 + 3 * frame
    late = list(enumerate(manifest.entries(first, 3), first))
    left.add(frame, Unpacked("", late, []))
print(peak_kib(os.getpid()) - before)
numbers = [number for number, _ in left.entries()]
assert numbers == list(range(1, 120_001))
backwards = [entry.path for entry in left.backwards()]
assert backwards == [entry.path for entry in reversed(manifest)][:-1]
"""


def test_open_folders_of_many_frames_take_no_memory(tmp_path: Path) -> None:
    """A pull of terabytes is not killed for the folders that each frame leaves to the next one."""
    command: list[str | Path] = [sys.executable, "-c", _LATE, tmp_path / "manifest"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert int(done.stdout) < 8 * 1024
