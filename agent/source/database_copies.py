"""Consistent copies of the databases of a Plex that runs: what a rehearsal has in their place.

::

    STATE/snapshots/<id>/databases/<SHA-256 of the path>   one database each

They are of one scan, and gone with the next one: a later delta needs only the manifest.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from typing import TYPE_CHECKING

import msgspec

from shared.errors import NoSpace, SnapshotGone, SourceUnreadable, printable
from shared.plex.sqlite_check import is_database
from shared.plex.sqlite_query import DatabaseError, back_up
from shared.regular_file import open_regular
from shared.tree.manifest import Kind
from shared.tree.walk import TreeWalk, WalkOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.source.library import LibrarySource
    from shared.tree.dir_stack import DirStack
    from shared.tree.manifest import Entry

_SUFFIX = b".db"
_BESIDE = re.compile(rb"(.*\.db)-(?:wal|shm|journal)", re.DOTALL)
"""What SQLite has beside a database, and what a copy made by it does not need."""
_SPARE = 64 << 20
"""Bytes that stay free on the state folder's filesystem."""


class DatabaseCopies:
    """The copies of one snapshot.

    Args:
        folder: the snapshot's.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._names: frozenset[str] | None
        self.look()

    def look(self) -> None:
        """Which there are; none at all once they were dropped."""
        there = os.path.isdir(_place(self._folder))
        self._names = frozenset(os.listdir(_place(self._folder))) if there else None

    def find(self, path: bytes) -> str | None:
        """The copy of the library's file at ``path``, if it is a database.

        Raises:
            SnapshotGone: there has been another scan since.
        """
        copy = _copy(self._folder, path)
        if self._names is None:
            raise SnapshotGone("the copies of the databases are gone, scan again")
        return copy if os.path.basename(copy) in self._names else None

    def in_place(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """``entries`` of a walk with the copies instead of the databases, and nothing beside these.

        Inode and ctime are the copy's: so each rehearsal has a name of its own.
        """
        for entry in entries:
            beside = _BESIDE.fullmatch(entry.path)
            if beside is not None and self.find(beside[1]) is not None:
                continue
            copy = self.find(entry.path) if entry.kind is Kind.FILE else None
            if copy is None:
                yield entry
                continue
            info = os.stat(copy)
            yield msgspec.structs.replace(
                entry,
                size=info.st_size,
                data=None,
                inode=info.st_ino,
                ctime_ns=info.st_ctime_ns,
                kept=False,
            )


def copy_databases(
    folder: str, source: LibrarySource, base: int, exclude: tuple[str, ...]
) -> DatabaseCopies:
    """Copy each database of the library by SQLite's backup API; Plex goes on writing.

    Args:
        folder: the snapshot's.
        source: the library.
        base: descriptor of the folder that it is in.
        exclude: patterns of what is left out.

    Raises:
        NoSpace: the state folder's filesystem does not hold them; nothing was copied.
        SourceUnreadable: SQLite cannot read one; every path of them is listed.
        OSError: the state folder does not take them.
    """
    os.mkdir(_place(folder), 0o700)
    walk = TreeWalk(source.tree(base), WalkOptions(exclude, inside=False, live=True))
    sizes = {
        entry.path: entry.size
        for entry in walk.entries()
        if entry.kind is Kind.FILE and entry.path.endswith((_SUFFIX, _SUFFIX + b"-wal"))
    }
    failed = []
    with source.folders() as folders:
        paths = [path for path in sizes if path.endswith(_SUFFIX) and _is_database(folders, path)]
        # A copy is at the most as large as a database with all that is in its -wal.
        needed = sum(sizes[path] + sizes.get(path + b"-wal", 0) for path in paths)
        _check_space(folder, needed)
        for path in paths:
            try:
                back_up(*folders.parent(path), _copy(folder, path))
            except (DatabaseError, OSError) as error:
                failed.append(f"{printable(path)} ({error})")
    if failed:
        raise SourceUnreadable(failed)
    return DatabaseCopies(folder)


def drop_copies(folder: str) -> None:
    """Remove those of the snapshot in ``folder``, if it has any."""
    shutil.rmtree(_place(folder), ignore_errors=True)


def keep_copies(draft: str, folder: str) -> None:
    """Give those of a scan to the snapshot in ``folder``, which saw the same."""
    if os.path.isdir(_place(draft)):
        os.rename(_place(draft), _place(folder))


def _is_database(folders: DirStack, path: bytes) -> bool:
    try:
        folder, name = folders.parent(path)
        fd = open_regular(name, dir_fd=folder)
    except OSError:
        return False  # it has gone; or the walk that makes the manifest says why
    with os.fdopen(fd, "rb") as file:
        return is_database(file)


def _check_space(folder: str, needed: int) -> None:
    volume = os.statvfs(folder)
    free = volume.f_bavail * volume.f_frsize
    if free < needed + _SPARE:
        raise NoSpace(
            f"the copies of the databases need {needed} bytes, and {_SPARE} are to stay free;"
            f" there are {free}",
            path=os.path.dirname(os.path.dirname(folder)),
            hint="Make room on the VM, or rehearse with Plex stopped: pull --no-cutover.",
        )


def _copy(folder: str, path: bytes) -> str:
    return os.path.join(_place(folder), hashlib.sha256(path).hexdigest())


def _place(folder: str) -> str:
    return os.path.join(folder, "databases")
