"""Changes while a live scan goes on, or while its frames are read, are transferred again."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from rig.delta_scans import LATER, Scans, marked

from agent.frames import builder
from agent.frames.blocks import find_block
from agent.frames.builder import build_frame
from agent.snapshots import whole_tree
from shared.frames.manifest_file import read_piece
from shared.frames.plan import FRAME
from shared.native import native
from shared.tree.line_file import PIECE
from shared.tree.manifest import Kind
from shared.tree.walk import TreeWalk

if TYPE_CHECKING:
    from pathlib import Path

    from agent.source.snapshot_files import SnapshotFiles
    from shared.tree.manifest import Entry

pytestmark = pytest.mark.usefixtures("trusted_times")


def test_folder_that_is_away_for_a_moment(scans: Scans, library: Path) -> None:
    """The content of another entry that had the name for a moment never counts as the entry's."""
    for name, target in (("F", "right"), ("G", "wrong")):
        (library / name).mkdir()
        (library / name / "x").symlink_to(target)
    base = scans.scan("live")
    (library / "F" / "x").unlink()
    (library / "F" / "x").symlink_to("right")
    real, swaps = TreeWalk._read, []

    def swapped(walk: TreeWalk, outside: Entry, folder: int, name: bytes) -> Entry:
        if outside.path != b"Library/F/x":
            return real(walk, outside, folder, name)
        swaps.append(1)
        (library / "F" / "x").rename(library / "x")
        (library / "G" / "x").rename(library / "F" / "x")
        try:
            return real(walk, outside, folder, name)
        finally:
            (library / "F" / "x").rename(library / "G" / "x")
            (library / "x").rename(library / "F" / "x")

    with mock.patch.object(TreeWalk, "_read", swapped):
        live = scans.scan("live", base.about.id)
    assert swaps
    assert all(entry.path != b"Library/F/x" for entry in live.manifest)


def test_first_name_of_a_file_goes_while_it_is_scanned(scans: Scans, library: Path) -> None:
    """A live delta never has a hard link to a path that it does not have."""
    base = scans.scan("live")
    (library / "c" / "a.tmp").write_bytes(b"content")
    (library / "c" / "final").hardlink_to(library / "c" / "a.tmp")
    real = TreeWalk._read

    def gone(walk: TreeWalk, outside: Entry, folder: int, name: bytes) -> Entry:
        if name == b"a.tmp":
            (library / "c" / "a.tmp").unlink(missing_ok=True)
        return real(walk, outside, folder, name)

    with mock.patch.object(TreeWalk, "_read", gone):
        delta = scans.scan("live", base.about.id)
    paths = {entry.path for entry in delta.manifest}
    assert b"Library/c/final" in paths
    assert all(entry.link in paths for entry in delta.manifest if entry.kind is Kind.HARDLINK)


def test_pieces_do_not_grow_from_delta_to_delta(tmp_path: Path) -> None:
    """A reader of the manifest refuses long pieces: those of a delta are no longer than others."""
    library = tmp_path / "Library"
    library.mkdir()
    scans = Scans(tmp_path / "state", library)
    base = scans.scan()
    for step in range(9, 3, -1):
        for number in range(60):
            (library / f"{step}{number:02}").symlink_to("x/" * 2040)
        base = scans.scan("cold", base.about.id)
        offsets = [*base.manifest._offset]
        pieces = [read_piece(base.manifest.path, *ends) for ends in pairwise(offsets)]
        assert max(map(len, pieces)) < PIECE + 80_000
    Scans(tmp_path / "state", library).store.open(base.about.id)


def _read_all(snapshot: SnapshotFiles) -> None:
    for frame in snapshot.manifest.plan:
        build_frame(snapshot, frame.number)


@pytest.mark.parametrize("is_fast", [True, False])
def test_folder_that_is_away_while_frames_are_read(
    scans: Scans, library: Path, *, is_fast: bool
) -> None:
    """Zeros were sent for its files, which look as before when it is back: they are sent again."""
    base = scans.scan("live")
    assert not {"Library/a/0", "Library/b/below/0"} & marked(base, library, LATER)
    (library / "a").rename(library / "away")
    with mock.patch.object(builder, "native", native if is_fast else None):
        _read_all(base)
    (library / "away").rename(library / "a")
    found = marked(base, library, LATER)
    assert {"Library/a/0", "Library/a/1", "Library/a/2", "Library/a/hard"} <= found
    assert "Library/b/below/0" not in found


@pytest.mark.parametrize("is_fast", [True, False])
def test_folders_that_are_swapped_while_frames_are_read(
    scans: Scans, library: Path, *, is_fast: bool
) -> None:
    """The content of another file is not sent for one that is away."""
    base = scans.scan("live")
    for source, target in (("a", "away"), ("c", "a")):
        (library / source).rename(library / target)
    with mock.patch.object(builder, "native", native if is_fast else None):
        _read_all(base)
    for source, target in (("a", "c"), ("away", "a")):
        (library / source).rename(library / target)
    assert {"Library/a/0", "Library/a/1", "Library/c/0"} <= marked(base, library, LATER)


def test_large_file_that_is_away_while_it_is_read(scans: Scans, library: Path) -> None:
    """A block that was not there, and a digest of it, make the whole file one to be sent again."""
    for name in ("block", "digest", "well"):
        (library / name).write_bytes(bytes(FRAME + 1))
    base = scans.scan("live")
    plan, entries = base.manifest.plan, list(base.manifest)
    numbers = {entry.path: number for number, entry in enumerate(entries)}
    frame = plan.frames_of(numbers[b"Library/block"], entries[numbers[b"Library/block"]])[1]
    (library / "block").rename(library / "x")
    block = find_block(base, frame)
    assert block is not None
    assert block.content == bytes(1)
    (library / "x").rename(library / "block")
    (library / "digest").rename(library / "x")
    whole_tree.complete_digests(base)
    (library / "x").rename(library / "digest")
    numbers_found = base.misread.numbers()
    assert numbers_found == {numbers[b"Library/block"], numbers[b"Library/digest"]}
