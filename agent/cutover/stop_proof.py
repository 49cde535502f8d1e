"""The proof that Plex is stopped: nothing of it is left, and nobody has used its library since.

A Plex that the agent cannot see, as in another container, leaves nothing, whatever its stop_command
has done. But Plex has its databases open as long as it runs, and their locks are visible from every
container of a machine. So no process may have one of them open then. Where Plex can be seen, other
programs may read its databases.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from agent.plex.folder import databases_in
from shared.errors import CutoverRefused, SnapshotGone
from shared.plex.sqlite_query import Use

if TYPE_CHECKING:
    from threading import Event

    from agent.cutover.context import CutoverContext
    from agent.cutover.state import Cutover
    from agent.plex.service import PlexService

_LINGER = 3.0
"""Seconds that processes get to end, and ports to close, after their unit did."""
_GLANCE = 0.02
_UNUSED = (
    *(errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP),  # no regular file
    *(errno.ENOSYS, errno.EOPNOTSUPP),  # a filesystem without locks
)
"""Errors of a ``-shm`` that no SQLite can use. It locks that file to open a database."""


class SomethingLeft(CutoverRefused):
    """Plex got the order to stop, and had not stopped when it was last checked."""


class StopProof:
    """Finds out whether Plex is stopped, and has been since.

    Args:
        plex: the service that is stopped.
        context: the rest of the agent.
    """

    def __init__(self, plex: PlexService, context: CutoverContext) -> None:
        self._plex = plex
        self._context = context

    def databases(self) -> str:
        """Return the folder of databases that the proof needs; empty if Plex can be seen.

        Call it before the stop.

        Raises:
            CutoverRefused: If systemd does not list the processes of this machine.
        """
        return "" if self._plex.is_visible() else self._context.database_folder()

    def wait(self, cutover: Cutover, ending: Event) -> None:
        """Wait a few seconds until Plex is stopped, or until ``ending`` is set.

        Raises:
            SomethingLeft: If it is not, or may not be.
        """
        deadline = self._context.clock() + _LINGER
        while (error := self._find(cutover)) is not None:
            if self._context.clock() > deadline or ending.is_set():
                raise error
            time.sleep(_GLANCE)

    def is_given(self, cutover: Cutover) -> bool:
        """Return whether Plex is stopped now.

        Raises:
            CutoverRefused: If systemd does not list the processes of this machine.
        """
        return self._find(cutover) is None

    def refute(self, cutover: Cutover) -> str:
        """Return what shows that Plex was started since it was stopped; empty if nothing does.

        Only a unit has a name for each of its runs. A container that has run and ended again is
        known by what it has changed.

        Raises:
            CutoverRefused: If systemd does not list the processes of this machine.
        """
        if left := self._plex.left():
            return "; ".join(left)
        if (error := self._find_open(cutover.databases)) is not None:
            return f"{error.what}: {error.path}"
        if self._plex.run() != cutover.run or self._has_been_used(cutover):
            return "it was started, and stopped again"
        return ""

    def _find(self, cutover: Cutover) -> SomethingLeft | None:
        if left := self._plex.left():
            return SomethingLeft(f"something of Plex is left: {'; '.join(left)}")
        return self._find_open(cutover.databases)

    def _find_open(self, folder: str) -> SomethingLeft | None:
        """Return an error about a database in ``folder`` that is open, or that may be."""
        path = folder
        try:
            for path in databases_in(folder) if folder else ():
                if (error := self._find_user(path)) is not None:
                    return error
        except OSError as error:
            return SomethingLeft(
                "the agent cannot find out whether Plex still has its databases open"
                f" ({error.strerror})",
                path=path,
                hint="If the agent may not read the folder or a -shm file in it, allow that. Then"
                " pull again.",
            )
        return None

    def _find_user(self, path: str) -> SomethingLeft | None:
        """Return an error if a process has the database open.

        A check of the agent's own is not Plex, but hides the locks of others. It began while Plex
        ran: without that, a check takes no lock. It may take an hour, and Plex would be down.
        """
        try:
            use = self._context.find_use(path)
        except OSError as error:
            if error.errno in _UNUSED:
                return None
            raise
        if use is Use.OTHERS:
            return SomethingLeft(
                "Plex, or another program, has this database open",
                path=path,
                hint="Check that stop_command stops the Plex of this library, and waits for its"
                " end. Nothing may start that Plex again. Close other programs that read the"
                " database. Then pull again.",
            )
        if use is Use.OURS:
            return SomethingLeft(
                "the agent is checking this database, so it cannot find out whether Plex has it"
                " open",
                path=path,
                hint="Pull again when the preflight, or the other pull, has ended.",
            )
        return None

    def _has_been_used(self, cutover: Cutover) -> bool:
        """Return whether the library is not as it was scanned for the commit that is under way."""
        if cutover.phase != "committing":
            return False
        try:
            return self._context.has_been_used(cutover.snapshot)
        except SnapshotGone:
            return True
