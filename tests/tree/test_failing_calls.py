"""Each call about the library fails once in turn: no failure counts as an answer."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.failing_calls import FailingCall, failing_calls

from agent.source import database_copies
from agent.source.database_copies import DatabaseCopies, copy_databases
from agent.source.library import open_library
from shared.errors import PlexodusError
from shared.tree.sizes import data_bytes
from shared.tree.walk import TreeWalk, WalkOptions

if TYPE_CHECKING:
    from agent.source.library import LibrarySource
    from shared.tree.manifest import Entry

CODES = [pytest.param(errno.EIO, id="EIO"), pytest.param(errno.EACCES, id="EACCES")]
CALLS = (
    *("stat", "open", "fstat", "listdir", "scandir", "lseek", "readlink", "listxattr", "getxattr"),
)
LIVE = [pytest.param(True, id="live"), pytest.param(False, id="cold")]


def grow(library: Path) -> None:
    """Make a library with one entry of each kind, in more than one folder."""
    (library / "folder").mkdir(parents=True)
    (library / "folder" / "file").write_bytes(b"content")
    (library / "folder" / "link").symlink_to("file")
    os.link(library / "folder" / "file", library / "name")
    os.setxattr(library / "folder", "user.x", b"y")
    os.setxattr(library / "name", "user.x", b"y")
    for name, content in (("all hole", b""), ("part hole", b"x" * 8192)):
        with (library / name).open("wb") as file:
            file.write(content)
            file.truncate(1 << 20)
    (library / "left out" / "below").mkdir(parents=True)
    (library / "left out" / "below" / "file").write_bytes(b"content")


def walked(source: LibrarySource, options: WalkOptions, fault: FailingCall) -> list[Entry] | None:
    """Return the entries of the library; None if the walk has reported an error."""
    with source.opened() as base:
        walk = TreeWalk(source.tree(base), options)
        with fault:
            entries = list(walk.entries())
    return None if walk.unreadable else entries


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("is_live", LIVE)
def test_walk_meets_one_failing_call(tmp_path: Path, code: int, is_live: bool) -> None:  # noqa: FBT001
    """The walk finds each entry with all that belongs to it, or says what it cannot read."""
    library = tmp_path / "vm" / "Plex Media Server"
    grow(library)
    source, options = open_library(str(library)).placed(), WalkOptions(("left out",), live=is_live)
    whole, *others = (walked(source, options, fault) for _, fault in failing_calls(0, ()))
    assert whole
    assert not others
    number = 0
    for number, fault in failing_calls(code, CALLS):
        entries = walked(source, options, fault)
        assert entries in (None, whole), number
    assert number > len(whole)


def test_filesystem_that_cannot_say_where_holes_are(tmp_path: Path) -> None:
    """The file counts as one without holes, and the walk does not end because of it."""
    (tmp_path / "file").write_bytes(b"content")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with FailingCall(1, errno.EOPNOTSUPP, ("lseek",)):
            assert data_bytes(fd, 1 << 20) is None
    finally:
        os.close(fd)


def make_database(path: Path) -> None:
    """Make a small database."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (x)")
        database.commit()


def rehearsed(source: LibrarySource, folder: Path, fault: FailingCall) -> list[bytes] | None:
    """Return the paths of databases that are in a rehearsal as copies; None if it failed."""
    folder.mkdir()
    with source.opened() as base:
        walk = TreeWalk(source.tree(base), WalkOptions(live=True))
        try:
            with fault:
                copies = copy_databases(str(folder), source, base, ())
                entries = list(copies.in_place(walk.entries()))
        except (PlexodusError, OSError):
            return None
    found = DatabaseCopies(str(folder))
    paths = [entry.path for entry in entries if found.find(entry.path) is not None]
    return None if walk.unreadable else paths


@pytest.mark.parametrize("code", CODES)
def test_rehearsal_meets_one_failing_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """No database is transferred while Plex writes to it, because its copy was forgotten."""
    library, names = tmp_path / "vm" / "Library", (f"{number}" for number in count())
    (library / "folder").mkdir(parents=True)
    for path in (library / "a.db", library / "folder" / "b.db"):
        make_database(path)
    source = open_library(str(library))
    whole, *_ = (
        rehearsed(source, tmp_path / next(names), each) for _, each in failing_calls(0, ())
    )
    assert whole == [b"Library/a.db", b"Library/folder/b.db"]
    # SQLite makes each copy in a process of its own, which takes long, and in which no call fails.
    monkeypatch.setattr(database_copies, "back_up", lambda *asked: Path(asked[-1]).touch())
    number = 0
    for number, fault in failing_calls(code, CALLS):
        paths = rehearsed(source, tmp_path / next(names), fault)
        assert paths in (None, whole), number
    assert number > 10


def test_database_that_comes_after_the_copies(tmp_path: Path) -> None:
    """A database that Plex makes during the scan is not transferred as an ordinary file."""
    library = tmp_path / "vm" / "Library"
    library.mkdir(parents=True)
    make_database(library / "a.db")
    (library / "thumbs.db").write_text("of another program")
    source = open_library(str(library))
    (tmp_path / "copies").mkdir()
    with source.opened() as base:
        copies = copy_databases(str(tmp_path / "copies"), source, base, ())
        walk = TreeWalk(source.tree(base), WalkOptions(live=True))
        entries = copies.in_place(walk.entries())
        assert b"Library/thumbs.db" in {entry.path for entry in entries}
        os.link(library / "thumbs.db", library / "new.db")
        walk = TreeWalk(source.tree(base), WalkOptions(live=True))
        with pytest.raises(PlexodusError, match="no copy of this database"):
            list(copies.in_place(walk.entries()))


def test_other_entries_with_a_database_suffix(tmp_path: Path) -> None:
    """A folder, a symlink, a hard link and an empty file do not stop a rehearsal."""
    library = tmp_path / "vm" / "Library"
    (library / "folder.db").mkdir(parents=True)
    make_database(library / "a.db")
    os.link(library / "a.db", library / "b.db")
    (library / "gone.db").symlink_to("nowhere")
    (library / "link.db").symlink_to("a.db")
    (library / "empty.db").touch()
    source = open_library(str(library))
    (tmp_path / "copies").mkdir()
    with source.opened() as base:
        copies = copy_databases(str(tmp_path / "copies"), source, base, ())
        walk = TreeWalk(source.tree(base), WalkOptions(live=True))
        found = {entry.path for entry in copies.in_place(walk.entries())}
        assert {path.name.encode() for path in library.iterdir()} <= {
            os.path.basename(path) for path in found
        }
        make_database(library / "empty.db")
        walk = TreeWalk(source.tree(base), WalkOptions(live=True))
        with pytest.raises(PlexodusError, match="no copy of this database"):
            list(copies.in_place(walk.entries()))
