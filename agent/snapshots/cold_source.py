"""The source of a cold snapshot: Plex is stopped at the scan, and nothing has changed at the end.

During a cutover, the agent itself has stopped Plex and proves it at the commit. Without one, a
person has, and may have started it again. A Plex that only opens its databases changes no file
after the scan, but the ``-wal`` and ``-shm`` beside them are not those of a stopped Plex.
"""

from __future__ import annotations

import errno
import os
import re
import time
from typing import TYPE_CHECKING

from agent.snapshots import whole_tree
from shared.errors import SourceChanged, SourceUnreadable
from shared.plex.library import DATABASE_FOLDER
from shared.plex.sqlite_query import Use, find_use
from shared.tree.manifest import parse_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.cutover.control import CutoverControl
    from agent.snapshots.store import OpenSnapshot, SnapshotStore

_FOLDER = f"{DATABASE_FOLDER}/".encode()
_DATABASE = re.compile(rb"((?:.*/)?" + re.escape(_FOLDER) + rb"[^/]+\.db)(?:-wal|-shm)?", re.DOTALL)
"""A database, or a file that SQLite has beside it."""
_ENCODED = b'"path_b64"'
"""Member of the line of a path that is not UTF-8."""
_UNUSED = (errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP)
"""Errors of a ``-shm`` that no SQLite can use. If it is no regular file, the checks say so."""
_GLANCE = 0.2
"""Seconds between two looks at a database that the agent itself is checking."""


class ColdSource:
    """Checks of the library in ``store``. Its methods block: call them from a worker thread.

    Args:
        store: the snapshots.
        cutover: says whether the agent itself has stopped Plex.
        log: writes an event and a sentence into the migration log.
    """

    def __init__(
        self, store: SnapshotStore, cutover: CutoverControl, log: Callable[[str, str], None]
    ) -> None:
        self._store = store
        self._cutover = cutover
        self._log = log

    def refuse_running(self, snapshot: OpenSnapshot) -> None:
        """Make sure that Plex has no database open.

        Call it after the walk: the walk finds a Plex that was started later.

        Raises:
            SourceChanged: If one has, and the agent has not stopped Plex itself.
            SourceUnreadable: If that cannot be found out.
        """
        if self._cutover.is_plex_stopped():
            return  # other programs may read: the agent knows better, and each second counts
        for path in _databases(snapshot):
            if _is_open(path):
                raise SourceChanged("Plex, or another program, has this database open", path=path)

    def check(self, snapshot: OpenSnapshot) -> None:
        """Make sure that the library is as it was scanned, and that Plex has not been started.

        Raises:
            SnapshotGone: If the library is not where it was scanned.
            SourceChanged: With the first entry that is new, gone, different or open.
            SourceUnreadable: If an entry can no longer be read.
        """
        self._store.check_source(snapshot)
        whole_tree.check_unchanged(snapshot)
        self.refuse_running(snapshot)
        about = f"The library is as it was scanned: {snapshot.about.entries} entries"
        self._log("unchanged", about)


def _databases(snapshot: OpenSnapshot) -> Iterator[str]:
    """Yield the path of each database in a folder that is called as Plex's, wherever it is."""
    source, seen = snapshot.source, set[bytes]()
    for _, text in snapshot.manifest.pieces():
        for line in text.splitlines() if _FOLDER in text or _ENCODED in text else ():
            if _FOLDER not in line and _ENCODED not in line:
                continue
            found = _DATABASE.fullmatch(parse_line(line).path)
            if found is not None and (path := found[1]) not in seen:
                seen.add(path)
                below = os.fsdecode(path[len(source.top) :]).lstrip("/")
                # SQLite, too, puts the files of a symlink beside what it leads to.
                yield os.path.realpath(os.path.join(source.place.path, below))


def _is_open(path: str) -> bool:
    """Return whether a process has the database open. The agent's own checks are waited for."""
    try:
        while (use := find_use(path)) is Use.OURS:
            time.sleep(_GLANCE)
    except OSError as error:
        if error.errno in _UNUSED:
            return False
        raise SourceUnreadable([f"{path}-shm"]) from error
    return use is Use.OTHERS
