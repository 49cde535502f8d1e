"""The source of a cold snapshot: Plex is stopped at the scan, and nothing has changed at the end.

During a cutover, the agent itself has stopped Plex and proves it at the commit. Without one, a
person has, and may have started it again. A Plex that only opens its databases changes no file
after the scan, but the ``-wal`` and ``-shm`` beside them are not those of a stopped Plex.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from agent.snapshots import whole_tree
from shared.errors import SourceChanged, SourceUnreadable
from shared.plex.library import DATABASE_FOLDER, DATABASES, server_folder
from shared.plex.sqlite_query import Use, find_use

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.cutover.control import CutoverControl
    from agent.snapshots.store import OpenSnapshot, SnapshotStore
    from agent.source.library import LibrarySource

_GLANCE = 0.2
"""Seconds between two looks at a database that the agent itself is checking."""


class ColdSource:
    """Checks of the library in ``store``. Its methods block: call them from a worker thread.

    Args:
        store: the snapshots, and where their library is.
        cutover: says whether the agent itself has stopped Plex.
        log: writes an event and a sentence into the migration log.
    """

    def __init__(
        self, store: SnapshotStore, cutover: CutoverControl, log: Callable[[str, str], None]
    ) -> None:
        self._store = store
        self._cutover = cutover
        self._log = log

    def refuse_running(self) -> None:
        """Make sure that no process has a database of the library open.

        Raises:
            SourceChanged: If one has, and the agent has not stopped Plex itself.
            SourceUnreadable: If the library is missing, or the files cannot be examined.
        """
        if self._cutover.standing().phase in ("stopped", "committed"):
            return  # another program than Plex may read: the commit has better proofs
        if (path := _find_open(self._store.locate())) is not None:
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
        self.refuse_running()  # now: a Plex that was started after the walk began is found, too
        about = f"The library is as it was scanned: {snapshot.about.entries} entries"
        self._log("unchanged", about)


def _find_open(source: LibrarySource) -> str | None:
    """Return the path of a database of Plex that a process has open, other than our checks."""
    server = server_folder(source.about.name)
    if server is None:
        return None
    below = os.path.relpath(server, source.about.name)
    for name in DATABASES:
        path = os.path.normpath(os.path.join(source.place.path, below, DATABASE_FOLDER, name))
        try:
            while (use := find_use(path)) is Use.OURS:
                time.sleep(_GLANCE)
            if use is Use.OTHERS:
                return path
        except OSError as error:
            raise SourceUnreadable([path]) from error
    return None
