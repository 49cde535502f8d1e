"""Consistent copies of a running Plex's databases, which a rehearsal transfers in their place.

::

    STATE/snapshots/<id>/databases/<SHA-256 of the path>   one database each

They belong to one scan and are removed by the next one, because a later delta needs only the
manifest.
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
    from collections.abc import Generator, Iterable

    from agent.source.library import LibrarySource
    from shared.tree.dir_stack import DirStack
    from shared.tree.manifest import Entry

_SUFFIX = b".db"
_BESIDE = re.compile(rb"(.*\.db)-(?:wal|shm|journal)", re.DOTALL)
"""Files that SQLite creates beside a database, and that a copy by SQLite does not need."""
_SPARE = 64 << 20
"""Bytes that must stay free on the state folder's filesystem."""


class DatabaseCopies:
    """The copies in ``folder``, that of one snapshot."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._names: frozenset[str] | None
        self.look()

    def look(self) -> None:
        """List the copies in the folder again."""
        there = os.path.isdir(_place(self._folder))
        self._names = frozenset(os.listdir(_place(self._folder))) if there else None

    def find(self, path: bytes) -> str | None:
        """Return the copy of the library's file at ``path``; None if it is not a database.

        Raises:
            SnapshotGone: If a later scan has removed the copies.
        """
        copy = _copy(self._folder, path)
        if self._names is None:
            raise SnapshotGone("a later scan has removed the copies of the databases; scan again")
        return copy if os.path.basename(copy) in self._names else None

    def may_be_in(self, lines: bytes) -> bool:
        """Return whether ``lines`` of the manifest may name a database, or all copies are gone."""
        return self._names is None or _SUFFIX + b'"' in lines

    def in_place(self, entries: Iterable[Entry]) -> Generator[Entry, None, None]:
        """Yield ``entries`` of a walk, with the copies in place of the databases.

        Leave out the files that SQLite creates beside a database. Use the inode and ctime of the
        copy, so that each rehearsal gets a snapshot name of its own.
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
            own = {"size": info.st_size, "inode": info.st_ino, "ctime_ns": info.st_ctime_ns}
            yield msgspec.structs.replace(entry, **own, data=None, kept=False)


def copy_databases(
    folder: str, source: LibrarySource, base: int, exclude: tuple[str, ...]
) -> DatabaseCopies:
    """Copy each database of ``source`` with SQLite's backup API, while Plex continues to write.

    The copies go into ``folder``, that of the snapshot. ``base`` is the descriptor of the folder
    that contains the library.

    Raises:
        NoSpace: If the state folder's filesystem is too small. Nothing was copied.
        SourceUnreadable: If SQLite cannot read some databases. It lists their paths.
        OSError: If a write to the state folder fails.
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
        # A copy is at most as large as the database and its -wal together.
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
    """Remove the copies of the snapshot in ``folder``, if it has any."""
    shutil.rmtree(_place(folder), ignore_errors=True)


def keep_copies(draft: str, folder: str) -> None:
    """Move the copies of a scan to the snapshot in ``folder``, which found the same entries."""
    if os.path.isdir(_place(draft)):
        os.rename(_place(draft), _place(folder))


def _is_database(folders: DirStack, path: bytes) -> bool:
    try:
        folder, name = folders.parent(path)
        fd = open_regular(name, dir_fd=folder)
    except OSError:
        return False  # the file is gone, or the scan for the manifest reports the error
    with os.fdopen(fd, "rb") as file:
        return is_database(file)


def _check_space(folder: str, needed: int) -> None:
    volume = os.statvfs(folder)
    free = volume.f_bavail * volume.f_frsize
    if free < needed + _SPARE:
        raise NoSpace(
            f"the copies of the databases need {needed} bytes, and {_SPARE} bytes must stay free;"
            f" only {free} bytes are free",
            path=os.path.dirname(os.path.dirname(folder)),
            hint="Free up space on the VM, or rehearse with Plex stopped: pull --no-cutover.",
        )


def _copy(folder: str, path: bytes) -> str:
    return os.path.join(_place(folder), hashlib.sha256(path).hexdigest())


def _place(folder: str) -> str:
    return os.path.join(folder, "databases")
