"""The source of a cold snapshot: Plex is stopped at the scan, and nothing has changed at the end.

During a cutover, the agent itself has stopped Plex and proves it at the commit. Without one, a
person has, and may have started it again. A Plex that only opens its databases changes no file
after the scan, but the ``-wal`` and ``-shm`` beside them are not those of a stopped Plex.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from typing import TYPE_CHECKING

from agent.snapshots import whole_tree
from shared.errors import (
    AgentUnreachable,
    SourceChanged,
    SourceUnreadable,
    StorageError,
    printable,
)
from shared.plex.library import DATABASE_FOLDER
from shared.plex.sqlite_query import Use, find_use
from shared.tree.manifest import parse_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.cutover.control import CutoverControl
    from agent.snapshots.store import OpenSnapshot, SnapshotStore
    from shared.errors import PlexodusError

_FOLDER = f"{DATABASE_FOLDER}/".encode()
_DATABASE = re.compile(rb"((?:.*/)?" + re.escape(_FOLDER) + rb"[^/]+\.db)(?:-wal|-shm)?", re.DOTALL)
"""A database, or a file that SQLite has beside it."""
_ENCODED = b'"path_b64"'
"""Member of the line of a path that is not UTF-8."""
_BUSY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK)
"""Errors of an agent or a machine that is out of a resource for a moment."""
_GLANCE = 0.2
"""Seconds between two looks at a database that the agent itself is checking."""


class ColdSource:
    """Checks of the library in ``store``, for all clients of one event loop.

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
        self._waits: dict[str, asyncio.Task[None]] = {}

    async def refuse_running(self, snapshot: OpenSnapshot) -> None:
        """Make sure that Plex has no database open; wait for the agent's own checks of them.

        Call it after the walk: the walk finds a Plex that was started later.

        Raises:
            SourceChanged: If one has, and the agent has not stopped Plex itself.
            SourceUnreadable, StorageError, AgentUnreachable: If that cannot be found out.
        """
        if await asyncio.to_thread(self._cutover.is_plex_stopped):
            return  # other programs may read: the agent knows better, and each second counts
        paths = await asyncio.to_thread(lambda: list(_databases(snapshot)))
        while (checked := await asyncio.to_thread(_checked_by_us, paths)) is not None:
            await self._wait(checked)

    async def _wait(self, path: str) -> None:
        """Wait for the end of the agent's own check of a database. All who wait share one task.

        No thread waits: a check may take an hour, and clients that have gone would leave theirs.
        """
        wait = self._waits.get(path)
        if wait is None:
            wait = self._waits[path] = asyncio.create_task(self._wait_alone(path))
            wait.add_done_callback(lambda _: self._waits.pop(path))
        await asyncio.shield(wait)

    async def _wait_alone(self, path: str) -> None:
        about = f"Waiting for the agent's own check of a database to end: {path}"
        await asyncio.to_thread(self._log, "waiting", about)
        is_ours = True
        while is_ours:
            await asyncio.sleep(_GLANCE)
            is_ours = await asyncio.to_thread(_is_ours, path)

    async def check(self, snapshot: OpenSnapshot) -> None:
        """Make sure that the library is as it was scanned, and that Plex has not been started.

        Raises:
            SnapshotGone: If the library is not where it was scanned.
            SourceChanged: With the first entry that is new, gone, different or open.
            SourceUnreadable: If an entry can no longer be read.
            StorageError, AgentUnreachable: See :meth:`refuse_running`.
        """
        await asyncio.to_thread(self._store.check_source, snapshot)
        await asyncio.to_thread(whole_tree.check_unchanged, snapshot)
        await self.refuse_running(snapshot)
        about = f"The library is as it was scanned: {snapshot.about.entries} entries"
        await asyncio.to_thread(self._log, "unchanged", about)


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


def _is_ours(path: str) -> bool:
    try:
        return find_use(path) is Use.OURS
    except OSError:  # those who wait find it, too
        return False


def _checked_by_us(paths: list[str]) -> str | None:
    """Return the first of these databases that the agent itself is checking, or None.

    Raises:
        SourceChanged: If another program has one open.
        SourceUnreadable, StorageError, AgentUnreachable: If that cannot be found out.
    """
    ours = None
    for path in paths:
        try:
            use = find_use(path)
        except OSError as error:
            raise _unknown(error, f"{path}-shm") from error
        if use is Use.OTHERS:
            raise SourceChanged("Plex, or another program, has this database open", path=path)
        if use is Use.OURS:
            ours = ours or path
    return ours


def _unknown(error: OSError, path: str) -> PlexodusError:
    """Return the error for a file that would show whether Plex runs, as for a library's file."""
    reason = os.strerror(error.errno or 0)
    if error.errno in (errno.EACCES, errno.EPERM):
        why = f"{reason}: it shows whether Plex runs, so --exclude does not apply to it"
        return SourceUnreadable([f"{printable(path)} ({why})"])
    what = f"the agent cannot find out whether Plex has its database open ({reason})"
    if error.errno in _BUSY:
        return AgentUnreachable(what, path=path)
    hint = "Check the health of the library's disk on the VM, then run again."
    return StorageError(what, path=path, hint=hint)
