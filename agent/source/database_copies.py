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
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from shared.durable import discard_folder
from shared.errors import NoSpace, SnapshotGone, SourceChanged, SourceUnreadable, printable
from shared.plex.sqlite_check import is_database
from shared.plex.sqlite_query import DatabaseError, back_up
from shared.presence import is_folder
from shared.regular_file import open_regular
from shared.tree.manifest import Kind
from shared.tree.walk import TreeWalk, WalkOptions

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from collections.abc import Set as AbstractSet

    from agent.source.library import LibrarySource
    from shared.tree.dir_stack import DirStack
    from shared.tree.manifest import Entry

_SUFFIX = b".db"
_BESIDE = re.compile(rb"(.*\.db)-(?:wal|shm|journal)", re.DOTALL)
"""Files that SQLite creates beside a database, and that a copy by SQLite does not need."""
_SPARE = 64 << 20
"""Bytes that must stay free on the state folder's filesystem."""


class _Content(Enum):
    """The content of a file with a database's suffix."""

    DATABASE = "database"
    OTHER = "other"
    UNKNOWN = "the file is gone, cannot be read, or is empty, as a database is at first"


class DatabaseCopies:
    """The copies in ``folder``, that of one snapshot.

    Args:
        folder: the snapshot's.
        others: files that have a database's suffix, and were examined and found to be none.
    """

    def __init__(self, folder: str, others: AbstractSet[bytes] = frozenset()) -> None:
        self._folder, self._others = folder, others
        self._names: frozenset[str] | None
        self.look()

    def look(self) -> None:
        """List the copies in the folder again."""
        try:
            self._names = frozenset(os.listdir(_place(self._folder)))
        except FileNotFoundError:
            self._names = None

    def find(self, path: bytes) -> str | None:
        """Return the copy of the library's file at ``path``; None if it is not a database.

        Raises:
            SnapshotGone: If a later scan has removed the copies.
        """
        copy = _copy(self._folder, path)
        if self._names is None:
            raise SnapshotGone("a later scan has removed the copies of the databases; scan again")
        return copy if os.path.basename(copy) in self._names else None

    def refuse_lost(self, entry: Entry) -> None:
        """Raise SnapshotGone if a file that the library does not have may be a lost copy."""
        if self._may_be_database(entry):
            raise SnapshotGone("the copy of a database is gone; scan again", path=entry.path)

    def may_be_in(self, lines: bytes) -> bool:
        """Return whether ``lines`` of the manifest may name a database, or all copies are gone."""
        return self._names is None or _SUFFIX + b'"' in lines

    def in_place(self, entries: Iterable[Entry]) -> Generator[Entry, None, None]:
        """Yield ``entries`` of a walk, with the copies in place of the databases.

        Leave out the files that SQLite creates beside a database. Use the inode and ctime of the
        copy, so that each rehearsal gets a snapshot name of its own.

        Raises:
            SourceChanged: If there may be a database without a copy. Plex may write to it while its
                bytes are read.
        """
        for entry in entries:
            beside = _BESIDE.fullmatch(entry.path)
            if beside is not None and self.find(beside[1]) is not None:
                continue
            copy = self.find(entry.path) if entry.kind is Kind.FILE else None
            if copy is None:
                if self._may_be_database(entry):
                    raise SourceChanged(
                        "the scan has no copy of this database: it is new, or could not be read",
                        path=entry.path,
                        hint="Rehearse again.",
                    )
                yield entry
                continue
            info = os.stat(copy)
            own = {"size": info.st_size, "inode": info.st_ino, "ctime_ns": info.st_ctime_ns}
            yield msgspec.structs.replace(entry, **own, data=None, kept=False)

    def _may_be_database(self, entry: Entry) -> bool:
        """Return whether an entry without a copy has bytes that may be a database's."""
        is_file = entry.kind is Kind.FILE and entry.size > 0
        return is_file and entry.path.endswith(_SUFFIX) and entry.path not in self._others


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
        found = {path: _content(folders, path) for path in sizes if path.endswith(_SUFFIX)}
        paths = [path for path, content in found.items() if content is _Content.DATABASE]
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
    others = {path for path, content in found.items() if content is _Content.OTHER}
    return DatabaseCopies(folder, others)


def drop_copies(folder: str, aside: str) -> None:
    """Remove the copies of the snapshot in ``folder``, if it has any: all or none.

    Files that cannot be removed are left in the new folder ``aside``. If a part of the copies were
    left in its place, the other databases would be read from the library.
    Raise OSError if they cannot be renamed.
    """
    discard_folder(_place(folder), aside)


def keep_copies(draft: str, folder: str) -> None:
    """Move the copies of a scan to the snapshot in ``folder``, which found the same entries."""
    if is_folder(_place(draft)):
        os.rename(_place(draft), _place(folder))


def _content(folders: DirStack, path: bytes) -> _Content:
    try:
        folder, name = folders.parent(path)
        with os.fdopen(open_regular(name, dir_fd=folder), "rb") as file:
            if is_database(file):
                return _Content.DATABASE
            return _Content.OTHER if os.fstat(file.fileno()).st_size else _Content.UNKNOWN
    except OSError:
        return _Content.UNKNOWN  # the scan for the manifest reports it, or does not find the file


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
