"""The proof that Plex is stopped: nothing of it is left, and nobody has used its library since.

A Plex that the agent cannot see leaves nothing, whatever a stop has done. It may be in a container
that hides its processes. Or the settings name another unit or container, which may not even run.
But Plex has its databases open as long as it runs, and their locks are visible from every container
of a machine. So before the stop, the agent finds out who has them open. If it would see the end of
that process, other programs may read the databases later. If not, or if nobody has them open, no
process may have one of them open after the stop.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agent.plex.folder import databases_in
from agent.plex.service import Sight
from shared.errors import CutoverRefused, SnapshotGone
from shared.plex.sqlite_query import Use, find_holder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

    from agent.cutover.context import CutoverContext
    from agent.cutover.state import Cutover
    from agent.plex.service import PlexService

_LINGER = 3.0
"""Seconds that processes get to end, and ports to close, after their unit did."""
_GLANCE = 0.02


class SomethingLeft(CutoverRefused):
    """Plex got the order to stop, and had not stopped when it was last checked."""


def users(
    plex: PlexService, folder: str, find_holder: Callable[[str], int | None] = find_holder
) -> Iterator[tuple[str, bool]]:
    """Yield the path of each open database, and whether the end of the process would be seen.

    The process that opened it first counts. Programs that only read it usually come later.

    Raises:
        OSError: If that cannot be found out.
        CutoverRefused: As :meth:`StopProof.databases`.
    """
    for path in databases_in(folder):
        if (pid := find_holder(path)) is not None:
            yield path, plex.shows(pid)


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
        """Return the folder of databases that the proof needs; empty if Plex is seen to use them.

        Call it before the stop. The record keeps the answer for later proofs, and other processes.

        Raises:
            CutoverRefused: If systemd does not list the processes of this machine, or the engine
                does not describe the container.
        """
        folder = self._context.database_folder()
        return "" if folder and self._is_seen_to_use(folder) else folder

    def before_stop(self, cutover: Cutover) -> Cutover:
        """Return the record that is durable before the order to stop Plex.

        Raises:
            CutoverRefused: As :meth:`databases`.
        """
        plex, now = self._plex, self._context.clock()
        return replace(
            cutover,
            was_running=plex.may_run(),
            was_seen=plex.look() is not Sight.GONE,
            starting=list(plex.starting),
            container=plex.record(),
            databases=self.databases(),
            stop_ordered=now,
            history=cutover.history.after_stop(now),
        )

    def words(self, cutover: Cutover) -> str:
        """Return what was tested, for the log."""
        return f"{self._plex.proof}, no open database" if cutover.databases else self._plex.proof

    def wait(self, cutover: Cutover, ending: Event) -> str:
        """Wait a few seconds until Plex is stopped, or until ``ending`` is set.

        Return the identifier of the start that was stopped (:meth:`PlexService.run`). A query that
        systemd or the engine does not answer is repeated, at least once.

        Raises:
            SomethingLeft: If Plex is not stopped, or may not be.
        """
        deadline = self._context.clock() + _LINGER
        while True:
            is_last = self._context.clock() > deadline or ending.is_set()
            try:
                if (error := self._find(cutover)) is None:
                    return self._plex.run()
            except CutoverRefused as failed:
                error = SomethingLeft(failed.what, path=failed.path, hint=failed.hint)
            if is_last:
                raise error
            time.sleep(_GLANCE)

    def is_given(self, cutover: Cutover) -> bool:
        """Return whether Plex is stopped now.

        Raises:
            CutoverRefused: If systemd does not list the processes of this machine.
        """
        return self._find(cutover) is None

    def can_compare(self, cutover: Cutover) -> bool:
        """Return whether this process can prove a commit: the command line has no snapshots."""
        try:
            return self._context.has_cold(cutover.snapshot)
        except SnapshotGone:
            return False

    def refute(self, cutover: Cutover) -> str:
        """Return why Plex may have been started since it was stopped; empty if it was not.

        Plex may have been started, too, if systemd or the engine does not answer.
        """
        try:
            started = self._find_start(cutover)
        except CutoverRefused as error:
            return f"the agent cannot find out whether Plex is still stopped: {error.what}"
        return f"somebody has started Plex on the VM meanwhile: {started}" if started else ""

    def _find_start(self, cutover: Cutover) -> str:
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

    def _is_seen_to_use(self, folder: str) -> bool:
        """Return whether databases are open, each by a process whose end would be seen."""
        try:
            seen = [is_seen for _, is_seen in users(self._plex, folder, self._context.find_holder)]
        except OSError:  # the test after the stop reports it
            return False
        return bool(seen) and all(seen)

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

        Raises:
            OSError: If that cannot be found out.
        """
        use = self._context.find_use(path)
        if use is Use.OTHERS:
            return SomethingLeft(
                "Plex, or another program, has this database open",
                path=path,
                hint="Check that the agent's settings (unit, container or stop_command) name the"
                " Plex of this library, and that stop_command waits for its end. Nothing may start"
                " that Plex again. Close other programs that read the database. Then pull again.",
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
