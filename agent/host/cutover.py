"""The cutover on the VM: Plex is stopped, kept stopped by a lease, and fenced off or started again.

Each step is durable before it is taken, and before it is acknowledged; whoever finds one half taken
takes it to its end, or back. Nothing of it is kept in memory: the service and 'plexodus-agent undo'
are two processes, which one lock keeps apart.

::

    STATE/cutover.json   where it stands
    STATE/cutover.lock   held while a step is taken
    STATE/fence          while it is there, systemd does not start Plex
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from agent.host.cutoverrecord import CutoverRecord, Fence, boottime
from agent.host.cutoverstate import (
    Cutover,
    about,
    begun,
    held,
    in_phase,
    is_to_be_undone,
    timestamp,
)
from shared.errors import CutoverEnded, CutoverRefused, SnapshotGone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.host.plexservice import PlexService
    from shared.protocol import CutoverPhase, CutoverRequest, CutoverStanding

_LINGER = 3.0
"""Seconds that processes get to end, and ports to close, after their unit did."""
_GLANCE = 0.02


class CutoverControl:
    """Takes the steps. Its methods block: call them from a worker thread.

    Args:
        state: the agent's state folder.
        plex: what is stopped and started.
        tell: adds an event to the migration log.
        lease_seconds: how long Plex stays stopped for a puller that is silent.
        stop_seconds: how long Plex may take to stop.
        logs_of_databases: the ``-wal`` files that there are, which a clean stop removes.
        has_cold: whether there is a cold snapshot of this name.
        clock: :func:`boottime`.
    """

    def __init__(
        self,
        state: str,
        plex: PlexService,
        tell: Callable[[str, str], None],
        lease_seconds: float,
        stop_seconds: float,
        logs_of_databases: Callable[[], list[str]],
        has_cold: Callable[[str], bool],
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._record = CutoverRecord(state)
        self.fence = Fence(state)
        self._plex = plex
        self._tell = tell
        self._lease_seconds = lease_seconds
        self._stop_seconds = stop_seconds
        self._logs_of_databases = logs_of_databases
        self._has_cold = has_cold
        self._ending = threading.Event()
        self._clock = clock

    def standing(self) -> CutoverStanding:
        """Where it stands; nothing is waited for.

        Raises:
            StorageError: the record cannot be read.
        """
        return self._about(self._record.load())

    def begin(self, request: CutoverRequest) -> CutoverStanding:
        """Stop Plex, prove it, and grant the lease; or find that this was done.

        Raises:
            CutoverRefused: Plex would not stop, or not stay so; it runs if it ran before.
            CutoverEnded: what is asked for was undone.
            OSError: the state folder cannot be written.
        """
        with self._alone() as now:
            cutover = begun(now, request, timestamp())
            if cutover is now:
                return self._about(now)
            if self._ending.is_set():
                raise CutoverRefused("the agent is being stopped")
            self._plex.check_fence(self.fence.path)
            plex = self._plex
            cutover = msgspec.structs.replace(
                cutover, was_running=plex.may_run(), starting=list(plex.starting)
            )
            self._record.save(cutover)
            try:
                self._stop(cutover)
            except CutoverRefused as error:
                self._tell("refused", f"Plex did not stop: {error.what}")
                try:
                    self._undo(cutover, error.what)
                except CutoverRefused as later:  # it is tried again, and is not what went wrong
                    self._tell("undo", f"Plex cannot be started yet: {later.what}")
                raise
            cutover = self._granted(cutover, "stopped", run=self._plex.run())
            logs = self._logs_of_databases()
            left = f"not cleanly: {', '.join(logs)} moves, too" if logs else "no -wal"
            self._tell("stopped", f"Plex is stopped: no process, no open port, {left}")
            return self._about(cutover)

    def renew(self, name: str) -> CutoverStanding:
        """Extend the lease.

        Raises:
            CutoverEnded: there is none any more.
            OSError: the state folder cannot be written.
        """
        with self._alone() as now:
            cutover = held(now, name, self._clock(), ("stopped",))
            return self._about(self._granted(cutover, "stopped", since=cutover.since))

    def commit(self, name: str, snapshot: str) -> CutoverStanding:
        """Put the fence up, for good; asked again, the answer is the same.

        Raises:
            CutoverEnded: Plex runs again, or has run since it was stopped.
            SnapshotGone: there is no such snapshot.
            OSError: the state folder cannot be written.
        """
        with self._alone() as now:
            cutover = held(now, name, self._clock(), ("stopped", "committed"))
            if cutover.phase == "committed":
                return self._about(cutover)
            if not self._has_cold(snapshot):
                raise SnapshotGone("there is no cold snapshot of this name to commit")
            self._prove(cutover)
            cutover = in_phase(cutover, "committing", snapshot=snapshot)
            self._record.save(cutover)
            return self._about(self._finish_commit(cutover))

    def undo(self, name: str, why: str) -> CutoverStanding:
        """Start Plex again if it ran before; nothing to do where that was done.

        Args:
            name: of the cutover; one that was committed cannot be undone by it.
            why: for the log.

        Raises:
            CutoverEnded: it is another one, or committed.
            CutoverRefused: Plex does not start; it is tried again.
            OSError: the state folder cannot be written.
        """
        with self._alone() as now:
            if now.id != name or now.phase == "committed":
                raise CutoverEnded("there is no such cutover under way")
            return self._about(now if now.phase == "idle" else self._undo(now, why))

    def lift(self, why: str, *, committed: bool) -> CutoverStanding:
        """Undo whatever there is: the way back, for the administrator.

        Args:
            why: for the log.
            committed: also what is committed, and the fence.

        Raises:
            CutoverRefused: Plex does not start; it is tried again.
            OSError: the state folder cannot be written.
        """
        with self._alone() as now:
            is_over = now.phase == "idle" or (now.phase == "committed" and not committed)
            return self._about(now if is_over else self._undo(now, why))

    def tend(self) -> None:
        """Take what was left half done to its end, or back; let an expired lease go.

        Raises:
            PlexodusError, OSError: it is to be tried again.
        """
        if self._record.load().phase not in ("idle", "committed"):
            with self._alone():
                pass

    def guard(self) -> None:
        """Once committed, Plex is stopped and fenced off, whatever has happened since.

        Raises:
            PlexodusError, OSError: it is to be tried again.
        """
        if self._record.load().phase != "committed":
            return
        with self._alone() as now:
            if now.phase == "committed" and not self.fence.is_up():
                self.fence.put_up(now.puller)
            if now.phase == "committed" and self._plex.is_running():
                self._tell("fence", "Plex runs though its library has moved: it is stopped again")
                self._plex.stop(self._stop_seconds, self._ending)

    def leave(self) -> None:
        """The agent ends, and nobody would see a lease expire: undo what is not committed.

        Whoever is just stopping Plex gives that up.

        Raises:
            PlexodusError, OSError: the agent's next start undoes it.
        """
        self._ending.set()
        if self._record.load().phase not in ("idle", "committed"):
            self.lift("the agent was stopped", committed=False)

    @contextmanager
    def _alone(self) -> Iterator[Cutover]:
        """The record, after what was left of earlier steps; nobody else takes one meanwhile."""
        with self._record.locked():
            now = self._record.load()
            if is_to_be_undone(now, self._clock()):
                why = "the lease has expired" if now.phase == "stopped" else "the agent was killed"
                now = self._undo(now, now.why or why)
            elif now.phase == "committing":
                now = self._finish_commit(now)
            yield now

    def _stop(self, cutover: Cutover) -> None:
        """Stop Plex and prove it.

        Raises:
            CutoverRefused: something of it is left.
        """
        self._tell("stop", f"Stopping Plex for {cutover.puller}")
        if cutover.was_running:
            self._plex.stop(self._stop_seconds, self._ending)
        deadline = self._clock() + _LINGER
        while left := self._plex.left():
            if self._clock() > deadline or self._ending.is_set():
                raise CutoverRefused(f"something of Plex is left: {'; '.join(left)}")
            time.sleep(_GLANCE)

    def _prove(self, cutover: Cutover) -> None:
        """Make sure that nobody has started Plex since it was stopped.

        Raises:
            CutoverEnded: somebody has; the cutover is over.
        """
        left = self._plex.left()
        if left or self._plex.run() != cutover.run:
            about = "; ".join(left) or "it was started, and stopped again"
            self._undo(cutover, f"somebody has started Plex: {about}")
            raise CutoverEnded(f"somebody has started Plex on the VM meanwhile: {about}")

    def _finish_commit(self, cutover: Cutover) -> Cutover:
        """The fence is up before the last look: nobody can start Plex after it."""
        self.fence.put_up(cutover.puller)
        self._prove(cutover)
        committed = in_phase(cutover, "committed")
        self._record.save(committed)
        self._tell("committed", f"Committed snapshot {cutover.snapshot}: Plex stays stopped here")
        return committed

    def _undo(self, cutover: Cutover, why: str) -> Cutover:
        if cutover.phase != "undoing":
            is_committed = cutover.phase == "committed"
            cutover = in_phase(cutover, "undoing", why=why)
            try:
                self._record.save(cutover)
                self._tell("undo", f"Undoing the cutover: {why}")
            except OSError:  # a disk that is full keeps nobody from starting Plex
                if is_committed:
                    raise
        self.fence.take_down()
        if cutover.was_running:
            self._plex.start()
        over = Cutover("idle", cutover.id, cutover.puller, timestamp(), why=cutover.why)
        self._record.save(over)
        does = "Plex was started again" if cutover.was_running else "Plex was not running before"
        self._tell("undone", f"The cutover is undone: {does}")
        return over

    def _granted(self, cutover: Cutover, phase: CutoverPhase, **changes: str) -> Cutover:
        now = self._clock()
        granted = in_phase(cutover, phase, **changes)
        granted = msgspec.structs.replace(granted, granted=now, until=now + self._lease_seconds)
        self._record.save(granted)
        return granted

    def _about(self, cutover: Cutover) -> CutoverStanding:
        return about(cutover, self._clock())
