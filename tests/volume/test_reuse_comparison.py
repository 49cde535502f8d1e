"""Two scans of a library are compared: nothing is reused that the volume does not have."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig.two_sides import TwoSides, recorded

from agent.snapshots import store
from initpuller.volume.reuse import matching
from initpuller.volume.reuse.matching import Reuse, compare
from initpuller.volume.staging.staging import begin
from shared.errors import SnapshotGone
from shared.frames.pieces import PIECE
from shared.frames.plan import FRAME, is_large, members
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from initpuller.volume.reuse.recorded import Listing
    from initpuller.volume.staging.staging import Staging

BLOCKS = 3
"""Blocks of a large file."""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Two folders of files that fill two frames together, two large files, links of both kinds."""
    library = tmp_path / "Library"
    content = random.Random(3)  # noqa: S311 - reproducible
    for folder in ("a", "b"):
        (library / folder).mkdir(parents=True)
        for number in range(4):
            (library / folder / f"{number}").write_bytes(content.randbytes(FRAME // 4))
    (library / "a" / "hard").hardlink_to(library / "a" / "0")
    (library / "a" / "link").symlink_to("1")
    for name in ("large", "other"):
        (library / name).write_bytes(content.randbytes((BLOCKS - 1) * FRAME + 17))
    return library


@pytest.fixture(autouse=True)
def _trusted_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every filesystem counts as one whose times show each change."""
    monkeypatch.setattr(store, "write_back", lambda path: {os.stat(path).st_dev})


@pytest.fixture
def sides(tmp_path: Path, library: Path) -> TwoSides:
    """The library, and an empty volume."""
    return TwoSides(tmp_path / "sides", library)


@pytest.fixture
def staging(sides: TwoSides) -> Staging:
    """A complete cold snapshot of it on the volume."""
    return sides.bring(sides.scan())


def compared(sides: TwoSides, staging: Staging) -> tuple[Listing, Reuse]:
    """Scan again, and compare; everything that is reused must be on the volume."""
    new = sides.scan()
    reuse = compare(recorded(staging), new)
    check(sides, new, reuse)
    return new, reuse


def check(sides: TwoSides, new: Listing, reuse: Reuse) -> None:
    """Raise unless kept frames are on the volume byte for byte, and held blocks as announced."""
    top = sides.library.parent
    staged = sides.staged.parent
    for number, _ in reuse.kept:
        frame = new.manifest.plan[number]
        for member in members(frame, new.manifest.entries(frame.first, frame.count)):
            if member.entry.kind is Kind.FILE:
                path = os.fsdecode(member.entry.path)
                assert _piece(staged / path, member.offset) == _piece(top / path, member.offset)
    for number, tag in reuse.held:
        frame = new.manifest.plan[number]
        [entry] = new.manifest.entries(frame.first, 1)
        block = _piece(staged / os.fsdecode(entry.path), frame.block * FRAME)
        pieces = (block[start : start + PIECE] for start in range(0, len(block), PIECE))
        digests = b"".join(hashlib.sha256(piece).digest() for piece in pieces)
        assert tag in (hashlib.sha256(digests).hexdigest(), "")
    assert not {number for number, _ in reuse.kept} & {number for number, _ in reuse.held}


def _piece(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(FRAME)


def fetched(new: Listing, reuse: Reuse) -> set[str]:
    """The files of which a frame has to be fetched or asked for."""
    missing = set(range(len(new.manifest.plan))) - {number for number, _ in reuse.kept}
    return {
        os.fsdecode(entry.path)
        for number, entry in enumerate(new.manifest)
        if entry.kind is Kind.FILE and missing & set(new.manifest.plan.frames_of(number, entry))
    }


def changed(reuse: Reuse) -> set[str]:
    """The paths that need attention."""
    assert reuse.changes is not None
    return {os.fsdecode(entry.path) for _, entry in reuse.changes.changed}


def gone(reuse: Reuse) -> set[str]:
    """The paths to remove."""
    assert reuse.changes is not None
    return set(map(os.fsdecode, reuse.changes.gone))


def test_nothing_has_changed(sides: TwoSides, staging: Staging) -> None:
    """Every frame is kept, with the digests of blocks; all file digests are one run."""
    new, reuse = compared(sides, staging)
    assert fetched(new, reuse) == set()
    assert reuse.held == []
    assert list(reuse.same) == [(0, 0, new.manifest.plan.entries)]
    tags = {number for number, tag in reuse.kept if tag is not None}
    assert len(tags) == 2 * BLOCKS
    assert gone(reuse) == {"Library/a/hard", "Library/a/link"}, "links are made again"


def test_one_small_file_has_changed(sides: TwoSides, staging: Staging) -> None:
    """Its frame is fetched, and no other."""
    (sides.library / "b" / "3").write_bytes(b"new")
    new, reuse = compared(sides, staging)
    assert "Library/b/3" in fetched(new, reuse)
    assert not {"Library/large", "Library/other", "Library/a/0"} & fetched(new, reuse)
    assert reuse.held == []


def test_one_block_of_a_large_file_has_changed(sides: TwoSides, staging: Staging) -> None:
    """All its blocks are held, each with the digest of what the volume has."""
    with (sides.library / "large").open("r+b") as file:
        file.seek(FRAME + 5)
        file.write(b"new")
    new, reuse = compared(sides, staging)
    assert fetched(new, reuse) == {"Library/large"}
    assert len(reuse.held) == BLOCKS
    assert all(tag for _, tag in reuse.held)


def test_large_file_is_small_now(sides: TwoSides, staging: Staging) -> None:
    """Nothing is held of it: its one frame is fetched."""
    os.truncate(sides.library / "large", 5)
    new, reuse = compared(sides, staging)
    assert "Library/large" in fetched(new, reuse)
    assert reuse.held == []


def test_renamed_file(sides: TwoSides, staging: Staging) -> None:
    """The old path is removed, and the file is fetched at its new path."""
    (sides.library / "large").rename(sides.library / "renamed")
    new, reuse = compared(sides, staging)
    assert fetched(new, reuse) == {"Library/renamed"}
    assert "Library/large" in gone(reuse)
    assert reuse.held == []


def test_two_files_swap_their_names(sides: TwoSides, staging: Staging) -> None:
    """Neither is kept: what is held at each path is the other one's content."""
    library = sides.library
    for one, two in (("large", "other"), ("a/1", "b/1")):
        (library / one).rename(library / "once")
        (library / two).rename(library / one)
        (library / "once").rename(library / two)
    new, reuse = compared(sides, staging)
    assert {"Library/large", "Library/other", "Library/a/1", "Library/b/1"} <= fetched(new, reuse)
    assert len(reuse.held) == 2 * BLOCKS


def test_file_becomes_a_folder_and_a_folder_a_file(sides: TwoSides, staging: Staging) -> None:
    """Both are removed first; what was below the folder goes with it."""
    library = sides.library
    (library / "large").unlink()
    (library / "large").mkdir()
    (library / "large" / "below").write_bytes(b"new")
    shutil.rmtree(library / "b")
    (library / "b").write_bytes(b"a file now")
    new, reuse = compared(sides, staging)
    assert {"Library/large/below", "Library/b"} <= fetched(new, reuse)
    assert {"Library/large", "Library/b", "Library/b/0"} <= gone(reuse)


def test_symlink_leads_elsewhere(sides: TwoSides, staging: Staging) -> None:
    """It is removed and made again, and nothing is fetched for it."""
    (sides.library / "a" / "link").unlink()
    (sides.library / "a" / "link").symlink_to("2")
    new, reuse = compared(sides, staging)
    assert "Library/a/link" in gone(reuse) & changed(reuse)
    assert fetched(new, reuse) == set()


def test_first_name_of_a_hard_link_is_removed(sides: TwoSides, staging: Staging) -> None:
    """The other name is a file of its own now, and is fetched."""
    (sides.library / "a" / "0").unlink()
    new, reuse = compared(sides, staging)
    assert "Library/a/hard" in fetched(new, reuse)
    assert "Library/a/0" in gone(reuse)


def test_removed_file_changes_its_folder(sides: TwoSides, staging: Staging) -> None:
    """The folder's times are set again after the removal."""
    (sides.library / "b" / "3").unlink()
    _, reuse = compared(sides, staging)
    assert "Library/b/3" in gone(reuse)
    assert "Library/b" in changed(reuse)


def test_frame_that_never_arrived(sides: TwoSides) -> None:
    """A file of which a frame is not journaled is not kept, though both scans saw it alike."""
    listing = sides.scan()
    staging = sides.begin(listing)
    sides.fill(staging, listing)
    [number] = [n for n, entry in enumerate(listing.manifest) if entry.path == b"Library/large"]
    [entry] = listing.manifest.entries(number, 1)
    staging.journal.redo([listing.manifest.plan.frames_of(number, entry)[1]])
    reuse = compare(recorded(staging), listing)
    check(sides, listing, reuse)
    assert fetched(listing, reuse) == {"Library/large"}
    assert len(reuse.held) == BLOCKS - 1


def test_young_file_of_a_live_snapshot(sides: TwoSides) -> None:
    """A later change may not show in its times: it is fetched, or asked for block by block."""
    staging = sides.bring(sides.scan("live"))
    new, reuse = compared(sides, staging)
    assert {"Library/large", "Library/other", "Library/a/0"} <= fetched(new, reuse)
    assert len(reuse.held) == 2 * BLOCKS


def test_delta_keeps_a_file_that_the_volume_has_lost(sides: TwoSides, staging: Staging) -> None:
    """It is refused: another snapshot, without a base, has to bring the file."""
    new = sides.scan(base=staging.state.snapshot.id)
    assert any(entry.kept for entry in new.manifest)
    staging.journal.redo([0])
    with pytest.raises(SnapshotGone, match="everything that the delta keeps"):
        compare(recorded(staging), new)


def test_delta_keeps_a_file_that_was_found_damaged(sides: TwoSides, staging: Staging) -> None:
    """The next delta must not keep it again, but fetch it."""
    first = sides.scan(base=staging.state.snapshot.id)
    delta = sides.bring(first, staging)
    [damaged] = [each for each in enumerate(delta.manifest) if each[1].path == b"Library/large"]
    delta.forget([damaged])
    with pytest.raises(SnapshotGone):
        compare(recorded(delta), sides.scan(base=first.snapshot.id))


def test_digests_of_what_a_delta_keeps_are_lost(sides: TwoSides, staging: Staging) -> None:
    """No file counts as damaged for that, and each is read back instead of fetched."""
    first = sides.scan(base=staging.state.snapshot.id)
    delta = sides.bring(first, staging)
    os.unlink(sides.layout.digests(first.snapshot.id))
    (sides.library / "b" / "3").write_bytes(b"changed")
    second = sides.scan(base=first.snapshot.id)

    resumed = begin(delta.record, second, sides.policy)

    missing = [second.manifest.plan[number].first for number in resumed.journal.missing()]
    [found] = [entry.path for each in missing for entry in second.manifest.entries(each, 1)]
    assert found in {b"Library", b"Library/b", b"Library/b/3"}
    assert resumed.finish(sides.fill(resumed, second)) == []
    digests = zip(resumed.manifest, resumed.digests, strict=True)
    assert all(digest for entry, digest in digests if entry.kind is Kind.FILE)
    resumed.close()


def test_too_many_changes_to_list(
    sides: TwoSides, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is left out, and frames are still found."""
    monkeypatch.setattr(matching, "_MOST", 3)
    for number in range(4):
        (sides.library / "b" / f"{number}").write_bytes(b"new")
    new, reuse = compared(sides, staging)
    assert reuse.changes is None
    assert {f"Library/b/{number}" for number in range(4)} <= fetched(new, reuse)


def test_digests_move_with_their_files(sides: TwoSides, staging: Staging) -> None:
    """An entry in front moves all numbers: the records of the new snapshot have each file's own."""
    (sides.library / "a" / "00").write_bytes(b"in front of the others")
    (sides.library / "b" / "1").unlink()
    moved = sides.begin(sides.scan(), staging)
    for entry, digest in zip(moved.manifest, moved.digests, strict=True):
        if entry.kind is Kind.FILE and digest is not None:
            content = (sides.library.parent / os.fsdecode(entry.path)).read_bytes()
            assert digest == hashlib.sha256(content).digest()
    large = [
        digest for entry, digest in zip(moved.manifest, moved.digests, strict=True)
        if is_large(entry)
    ]  # fmt: skip
    assert None not in large
    moved.close()


def _rewrite(path: Path) -> None:
    path.write_bytes(b"rewritten " + os.urandom(8))


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _rename(path: Path) -> None:
    path.rename(path.with_name(path.name + "-renamed"))


def _link(path: Path) -> None:
    path.with_name(path.name + "-hard").hardlink_to(path)


def _patch(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(8))


CHANGES: list[Callable[[Path], None]] = [
    _rewrite,
    _to_folder,
    _patch,
    os.unlink,
    _rename,
    lambda path: os.truncate(path, (BLOCKS - 1) * FRAME + 1),
    _link,
    lambda path: os.chmod(path, 0o600),
]
FILES = ["a/0", "a/1", "a/2", "b/0", "b/3", "large", "other"]


@settings(
    max_examples=10,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.dictionaries(st.sampled_from(FILES), st.sampled_from(CHANGES), max_size=5))
def test_any_changes(
    tmp_path_factory: pytest.TempPathFactory,
    library: Path,
    changes: dict[str, Callable[[Path], None]],
) -> None:
    """After any change, the next staging is the library, and only the library."""
    place = tmp_path_factory.mktemp("any")
    shutil.copytree(library, place / "Library", symlinks=True)
    sides = TwoSides(place / "sides", place / "Library")
    staging = sides.bring(sides.scan())
    for name, change in changes.items():
        change(sides.library / name)
    new, _ = compared(sides, staging)
    sides.bring(new, staging).close()
    for entry in new.manifest:
        path = os.fsdecode(entry.path).partition("/")[2]
        if entry.kind is Kind.FILE:
            assert (sides.staged / path).read_bytes() == (sides.library / path).read_bytes()
    shutil.rmtree(place)
