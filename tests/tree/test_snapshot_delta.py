"""A delta has the entries of a whole scan, and keeps those that are as its base saw them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig.mounts import NEEDS_ROOT, tmpfs

from agent.snapshots import store, whole_tree
from agent.snapshots.delta import Marker
from agent.snapshots.delta_lines import DeltaLines, UnusualDelta
from agent.snapshots.store import SnapshotStore
from agent.source.library import CurrentLibrary
from initpuller.volume.filesystem import opened
from shared.errors import SnapshotGone
from shared.frames.file_digests import FileDigests
from shared.frames.manifest_file import read_piece
from shared.frames.plan import FRAME
from shared.native import native
from shared.tree.line_file import PIECE
from shared.tree.manifest import Kind, parse_line
from shared.tree.omitted import read_omitted
from shared.tree.racy import Steadiness
from shared.tree.walk import Tree, TreeWalk, WalkOptions
from shared.wire.protocol import SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.source.snapshot_files import SnapshotFiles
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Kind as SnapshotKind

LATER = "2100-01-01T00:00:00.000+00:00"
"""A base that began then finds every file old enough."""


@pytest.fixture(autouse=True)
def _trusted_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every filesystem counts as one whose times show each change."""
    monkeypatch.setattr(store, "write_back", lambda path: {os.stat(path).st_dev})


@pytest.fixture(params=["usual", "odd xattr"])
def library(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Folders with files, a database, links of both kinds, a FIFO, an xattr.

    The accelerator leaves a library to Python in which an xattr has an odd name.
    """
    library = tmp_path / "Library"
    content = random.Random(6)  # noqa: S311 - reproducible
    for folder in ("a", "b/below", "c"):
        (library / folder).mkdir(parents=True)
        for number in range(3):
            (library / folder / f"{number}").write_bytes(content.randbytes(3000))
    (library / "a" / "hard").hardlink_to(library / "a" / "0")
    (library / "b" / "link").symlink_to("below")
    (library / "c" / "x.db").write_bytes(b"database")
    os.mkfifo(library / "c" / "fifo")
    name = "user.two\nlines" if request.param == "odd xattr" else "user.one"
    os.setxattr(library / "b" / "below" / "0", name, b"")
    with (library / "c" / "sparse").open("wb") as sparse:
        sparse.truncate(100_000)
    return library


class Scans:
    """Scans of one library."""

    def __init__(self, state: Path, library: Path) -> None:
        state.mkdir(exist_ok=True)
        self.store = SnapshotStore(str(state), CurrentLibrary(str(library), str, str(state)))

    def scan(self, kind: SnapshotKind = "cold", base: str = "", *exclude: str) -> SnapshotFiles:
        """Scan the library."""
        request = SnapshotRequest(kind, list(exclude), base)
        return self.store.open(self.store.scan(request).id)

    def delta(self, base: SnapshotFiles, *exclude: str) -> dict[str, Entry]:
        """Return the entries of a delta, by path; they must be those of a whole scan.

        Without the accelerator it must be the same delta, mark by mark.
        """
        delta = self.scan("cold", base.about.id, *exclude)
        with mock.patch.object(store, "native", None):
            assert self.scan("cold", base.about.id, *exclude).about.id == delta.about.id
        whole = self.scan("cold", "", *exclude)
        unmarked = [msgspec.structs.replace(entry, kept=False) for entry in delta.manifest]
        assert unmarked == list(whole.manifest)
        assert delta.about.omitted is not None
        assert delta.about.omitted == whole.about.omitted
        return {os.fsdecode(entry.path): entry for entry in delta.manifest}


@pytest.fixture
def scans(tmp_path: Path, library: Path) -> Scans:
    """Scans of the library."""
    return Scans(tmp_path / "state", library)


def sent(entries: dict[str, Entry]) -> set[str]:
    """The paths that are not kept."""
    return {path for path, entry in entries.items() if not entry.kept}


def test_everything_is_as_it_was(scans: Scans) -> None:
    """Every entry is kept."""
    assert sent(scans.delta(scans.scan())) == set()


def test_digests_of_kept_files_are_known(scans: Scans) -> None:
    """Nothing that is kept has to be read again for its digest."""
    base = scans.scan()
    whole_tree.complete_digests(base)
    delta = scans.scan("cold", base.about.id)
    assert list(delta.digests) == list(base.digests)
    assert any(delta.digests)


@pytest.mark.parametrize("what", ["content", "content, same times", "mode", "time", "xattr"])
def test_changed_file_is_sent(scans: Scans, library: Path, what: str) -> None:
    """The file is sent, and nothing else: its folder has not changed."""
    base, file = scans.scan(), library / "b" / "below" / "1"
    info = file.stat()
    if what == "mode":
        file.chmod(0o600)
    elif what == "time":
        os.utime(file, ns=(1, 1))
    elif what == "xattr":
        os.setxattr(file, "user.x", b"y")
    else:
        with file.open("r+b") as opened:
            opened.write(b"new")
        if what == "content, same times":
            os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert sent(scans.delta(base)) == {"Library/b/below/1"}


def test_renamed_folder_is_sent(scans: Scans, library: Path) -> None:
    """With everything below it, and the folder that contains it."""
    base = scans.scan()
    (library / "b" / "below").rename(library / "b" / "other")
    found = sent(scans.delta(base))
    assert {"Library/b", "Library/b/other", "Library/b/other/0"} <= found
    assert not any(path.startswith(("Library/a", "Library/c")) for path in found)


def test_names_come_and_go(scans: Scans, library: Path) -> None:
    """A folder that has got or lost a name is listed again."""
    base = scans.scan()
    (library / "a" / "00").write_bytes(b"new")
    (library / "c" / "2").unlink()
    entries = scans.delta(base)
    assert sent(entries) == {"Library/a", "Library/a/00", "Library/c"}
    assert "Library/c/2" not in entries


def test_file_becomes_a_folder(scans: Scans, library: Path) -> None:
    """The folder is sent with everything in it."""
    base = scans.scan()
    (library / "a" / "1").unlink()
    (library / "a" / "1").mkdir()
    (library / "a" / "1" / "below").write_bytes(b"new")
    assert sent(scans.delta(base)) == {"Library/a", "Library/a/1", "Library/a/1/below"}


def test_what_is_left_out_is_reported_again(scans: Scans) -> None:
    """A FIFO, and a name that a pattern excludes: the delta reports both, as a whole scan does."""
    base = scans.scan("cold", "", "2")
    assert sent(scans.delta(base, "2")) == set()


def test_base_of_an_older_release(tmp_path: Path, library: Path) -> None:
    """There is no file of what it left out: it is no base, until the next scan makes its list."""
    base = Scans(tmp_path / "state", library).scan("cold", "", "2")
    path = Path(base.folder, "snapshot.json")
    about = json.loads(path.read_text())
    del about["omitted"]
    about |= {"skipped": ["Library/c/fifo (FIFO)"], "excluded": ["Library/a/2 (3000 bytes)"]}
    path.write_text(json.dumps(about))
    Path(base.omitted_path).unlink()

    scans = Scans(tmp_path / "state", library)
    base = scans.store.open(base.about.id)
    whole_tree.check_unchanged(base)
    with pytest.raises(SnapshotGone):
        scans.scan("cold", base.about.id, "2")
    scans.scan("cold", "", "2")
    listed = len(list(read_omitted(base.omitted_path)))
    assert listed in (4, 5)  # a FIFO, three files called 2, and an xattr with an odd name
    assert sent(scans.delta(base, "2")) == set()


def test_excluded_file_grows(scans: Scans, library: Path) -> None:
    """The next scan has the same entries, so it is the same snapshot; the list is the new one."""
    before = scans.scan("cold", "", "2")
    listed = {str(record) for record in read_omitted(before.omitted_path)}
    with (library / "a" / "2").open("ab") as file:
        file.write(b"more")
    after = scans.scan("cold", "", "2")
    assert after.about.id == before.about.id
    assert after.about.created == before.about.created  # the times that are trusted do not change
    found = {str(record) for record in read_omitted(after.omitted_path)}
    assert found - listed == {"Library/a/2 (3004 bytes)"}
    assert len([name for name in os.listdir(after.folder) if name.startswith("omitted-")]) == 1


def test_other_patterns_than_the_base(scans: Scans) -> None:
    """Folders are listed again: names that the base left out are entries now."""
    base = scans.scan("cold", "", "2")
    assert {"Library/a/2", "Library/c/2"} <= sent(scans.delta(base))


def marked(base: SnapshotFiles, library: Path, created: str) -> set[str]:
    """Return the paths that a walk sends if the base, of the kind that it has, began then."""
    kind = base.about.kind
    known = zip(base.manifest, base.digests, strict=True)
    marker = Marker(base, (), Steadiness(kind, created), known)
    with opened(str(library.parent)) as folder:
        tree = Tree(folder, os.fsencode(library.name))
        found = list(TreeWalk(tree, memory=marker).entries())
        fast = found
        if native is not None:
            with suppress(UnusualDelta), tempfile.TemporaryDirectory() as place:
                walk = TreeWalk(tree, WalkOptions(inside=False))
                digests = FileDigests(f"{place}/digests", 0)
                delta = DeltaLines(base, walk, digests, Steadiness(kind, created))
                fast = [parse_line(x) for each in delta.lines() for x in each.splitlines()]
    assert fast == found
    return {os.fsdecode(entry.path) for entry in found if not entry.kept}


def test_databases_of_a_live_base_are_sent(scans: Scans, library: Path) -> None:
    """SQLite writes through memory maps, so a database's times say nothing; all else is kept."""
    base = scans.scan("live")
    assert marked(base, library, LATER) == {"Library/c/x.db"}


def test_young_files_of_a_live_base_are_sent(scans: Scans, library: Path) -> None:
    """A write right after the scan could have left the ctime as it is."""
    base = scans.scan("live")
    found = marked(base, library, base.about.created)
    assert found == {os.fsdecode(entry.path) for entry in base.manifest}


def test_disk_whose_times_are_not_trusted(
    scans: Scans, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing on it is kept."""
    monkeypatch.setattr(store, "write_back", lambda _: set())
    base = scans.scan()
    found = marked(base, library, LATER)
    assert found == {os.fsdecode(entry.path) for entry in base.manifest}


def _replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(os.urandom(3000))


def _swap(path: Path) -> None:
    other, once = path.with_name("0"), path.with_name("once")
    if other != path and other.exists():
        path.rename(once)
        other.rename(path)
        once.rename(other)


CHANGES: list[Callable[[Path], object]] = [
    _replace,
    _swap,
    os.unlink,
    lambda path: path.rename(path.with_name("zz")),
    lambda path: path.with_name("00").write_bytes(b"new"),
    lambda path: path.with_name(path.name + "-new").hardlink_to(path),
    lambda path: shutil.rmtree(path.parent),
]
FILES = ["a/1", "b/below/0", "b/below/2", "c/1"]


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(FILES), st.sampled_from(CHANGES), max_size=4))
def test_any_changes(
    tmp_path_factory: pytest.TempPathFactory,
    library: Path,
    changes: dict[str, Callable[[Path], object]],
) -> None:
    """The entries are those of a whole scan, and a kept file has the content that it had."""
    place = tmp_path_factory.mktemp("any")
    copy = place / "Library"
    shutil.copytree(library, copy, symlinks=True, ignore=lambda *_: {"fifo"})
    scans = Scans(place / "state", copy)
    base = scans.scan()
    before = {path: (copy / path).read_bytes() for path in FILES}
    for name, change in changes.items():
        if (copy / name).exists():
            change(copy / name)
    entries = scans.delta(base)
    for path, content in before.items():
        entry = entries.get(f"Library/{path}")
        if entry is not None and entry.kept:
            assert (copy / path).read_bytes() == content
    shutil.rmtree(place)


@pytest.mark.skipif(native is None, reason="the accelerator is not installed")
def test_unchanged_entries_need_no_python(tmp_path: Path) -> None:
    """Of a library that is as it was, only large files and databases are judged one by one."""
    library = tmp_path / "Library"
    for number in range(50):
        (library / f"{number}").mkdir(parents=True)
        for name in ("file", "other"):
            (library / f"{number}" / name).write_bytes(name.encode())
        (library / f"{number}" / "link").symlink_to("file")
    (library / "x.db").touch()
    scans = Scans(tmp_path / "state", library)
    base = scans.scan()
    with mock.patch.object(DeltaLines, "_judged", autospec=True, side_effect=_judged) as judged:
        delta = scans.scan("cold", base.about.id)
    assert sum(entry.kept for entry in delta.manifest) == 1 + 50 * 4 + 1
    assert [call.args[2].path for call in judged.call_args_list] == [b"Library/x.db"]


_judged = DeltaLines._judged


@NEEDS_ROOT
def test_disk_in_the_library_whose_times_are_not_trusted(scans: Scans, library: Path) -> None:
    """Nothing on it is kept, and everything else is."""
    shutil.move(library / "c", library.parent / "c")
    (library / "c").mkdir()
    with tmpfs(library / "c") as disk:
        for name in ("0", "x.db"):
            shutil.copy2(library.parent / "c" / name, disk)
        base = scans.scan()
        found = sent(scans.delta(base))
        assert found == {path for path in found if path.startswith("Library/c")}
        assert {"Library/c", "Library/c/0", "Library/c/x.db"} <= found


def test_kept_large_file_without_a_digest(scans: Scans, library: Path) -> None:
    """If the base's digests were lost, a kept large file is read whole: it has no frames."""
    with (library / "large").open("wb") as large:
        large.truncate(FRAME + 1)
    base = scans.scan()
    delta = scans.scan("cold", base.about.id)
    whole_tree.complete_digests(delta)
    digests = {
        entry.path: digest for entry, digest in zip(delta.manifest, delta.digests, strict=True)
    }
    assert digests[b"Library/large"] == hashlib.sha256(bytes(FRAME + 1)).digest()


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
