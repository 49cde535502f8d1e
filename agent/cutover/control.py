"""The cutover on the VM: Plex is stopped, kept stopped by a lease, and fenced off or started again.

Each step is durable before it is taken, and before it is acknowledged; whoever finds one half taken
takes it to its end, or back. Nothing of it is kept in memory: the service and 'plexodus-agent undo'
are two processes, which one lock keeps apart.

::

    STATE/cutover.json   the phase
    STATE/cutover.lock   held while a step is taken
    STATE/fence          while it is there, systemd does not start Plex
    STATE-witness/       a second cutover.json and fence: STATE may be restored or lost
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from agent.cutover.plex_restart import PlexRestart
from agent.cutover.record import CutoverRecord, Fence
from agent.cutover.state import (
    Cutover,
    about,
    begun,
    ended,
    held,
    in_phase,
    is_to_be_undone,
    why_undone,
)
from agent.cutover.stop_history import StopHistory, check_repeated
from agent.plex.service import CommandFailed, Sight
from shared.errors import CutoverEnded, CutoverRefused, SnapshotGone
from shared.program.exit_codes import ExitCode
from shared.timestamps import timestamp
from shared.wire.protocol import StopFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.cutover.context import CutoverContext, CutoverLimits
    from agent.plex.service import PlexService
    from shared.wire.protocol import CutoverPhase, CutoverRequest, CutoverStanding

_LINGER = 3.0
"""Seconds that processes get to end, and ports to close, after their unit did."""
_GLANCE = 0.02


class _SomethingLeft(CutoverRefused):
    """Plex got the order to stop, and had not stopped when it was last checked."""


class CutoverControl:
    """Takes the steps. Its methods block: call them from a worker thread.

    Args:
        state: the agent's state folder.
        plex: the service that is stopped and started.
        limits: how long the steps may take.
        context: the rest of the agent.
    """

    def __init__(
        self, state: str, plex: PlexService, limits: CutoverLimits, context: CutoverContext
    ) -> None:
        self._record = CutoverRecord(state)
        self.fence = Fence(state)
        self._plex = plex
        self._limits = limits
        self._context = context
        self._tell, self._clock = context.tell, context.clock
        self._ending = threading.Event()
        self._restart = PlexRestart(plex, limits.stop_seconds, context.clock)

    def standing(self) -> CutoverStanding:
        """Return the state of the cutover, without waiting.

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
            check_repeated(now.history, request, self._clock())
            self._plex.check_fence(self.fence.path)
            cutover = self._record.save(self._stopping(cutover))
            try:
                self._stop(cutover)
            except CutoverRefused as error:
                self._refuse(cutover, request, error)
                raise
            cutover = msgspec.structs.replace(cutover, stop_ordered=None)
            if cutover.max_seconds:
                bound = self._clock() + cutover.max_seconds
                cutover = msgspec.structs.replace(cutover, bound=bound)
            cutover = self._granted(cutover, "stopped", run=self._plex.run())
            logs = self._context.logs_of_databases()
            left = f"not cleanly: {', '.join(logs)} moves, too" if logs else "no -wal"
            self._tell("stopped", f"Plex is stopped: no process, no open port, {left}")
            return self._about(cutover)

    def renew(self, name: str) -> CutoverStanding:
        """Extend the lease.

        Raises:
            CutoverEnded: the cutover has ended.
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
            if not self._context.has_cold(snapshot):
                raise SnapshotGone("there is no cold snapshot of this name to commit")
            self._prove(cutover)
            cutover = self._record.save(in_phase(cutover, "committing", snapshot=snapshot))
            return self._about(self._finish_commit(cutover))

    def undo(self, name: str, why: str, failure: StopFailure | None = None) -> CutoverStanding:
        """Start Plex again if it ran before; nothing to do where that was done.

        It is over when the phase is ``idle``; until then, :meth:`tend` continues it.

        Args:
            name: of the cutover; one that was committed cannot be undone by it.
            why: for the log.
            failure: that a retry would meet again.

        Raises:
            CutoverEnded: it is another one, or committed.
            CutoverRefused: Plex does not start; it is tried again.
            OSError: the state folder cannot be written.
        """
        with self._alone() as now:
            if now.id != name or now.phase == "committed":
                raise CutoverEnded("there is no such cutover under way")
            if failure is not None:
                self._remember(now, now.history.after_failure(failure))
            return self._about(self._undone(why, unless=("idle",)))

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
            if committed:
                self._remember(now, StopHistory())
            return self._about(
                self._undone(why, unless=("idle",) if committed else ("idle", "committed"))
            )

    def started(self) -> None:
        """Note that the agent has started: what it may do to Plex may have changed.

        A record that has no copy gets one: an earlier release wrote none.

        Raises:
            PlexodusError, OSError: the record cannot be read or written.
        """
        with self._record.locked():
            now = self._record.load()
            if now.history.is_stop_refused:
                self._remember(now, StopHistory(now.history.stops, now.history.last))
            elif now.id and not self._record.has_witness():
                self._record.save(now)

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

        The state of the state folder does not matter: the witness has the record, too.

        Raises:
            PlexodusError, OSError: it is to be tried again.
        """
        if self._record.is_removed():
            with self._record.locked():
                if self._record.is_removed():
                    self._record.save(self._record.load())
                    self.fence.take_down()
            self._tell("record", "The record and the fence were removed by hand: nothing is undone")
        elif self._record.is_behind():
            with self._alone() as now:
                self._record.save(now)
            about = f"The state folder was restored or lost; the record is back: {now.phase}"
            self._tell("record", about)
        if self._record.load().phase != "committed":
            return
        with self._alone() as now:
            if now.phase == "committed" and not self.fence.is_whole():
                self.fence.put_up(now.puller)
            if now.phase == "committed" and self._plex.is_running():
                self._tell("fence", "Plex runs though its library has moved: it is stopped again")
                self._plex.stop(self._limits.stop_seconds, self._ending)

    def leave(self) -> bool:
        """Undo a cutover that is not committed, because no process would see its lease expire.

        A stop of Plex that is under way is given up. Call it again while it is not over.

        Raises:
            PlexodusError, OSError: the agent's next start undoes it.
        """
        self._ending.set()
        if self._record.load().phase not in ("idle", "committed"):
            return self.lift("the agent was stopped", committed=False).phase != "undoing"
        return True

    @contextmanager
    def _alone(self) -> Iterator[Cutover]:
        """The record, after what was left of earlier steps; nobody else takes one meanwhile."""
        with self._record.locked():
            now = self._record.load()
            if is_to_be_undone(now, self._clock()):
                now = self._undo(now, why_undone(now, self._clock()))
            elif now.phase == "committing":
                now = self._finish_commit(now)
            yield now

    def _remember(self, cutover: Cutover, history: StopHistory) -> None:
        if history != cutover.history:
            self._record.save(msgspec.structs.replace(cutover, history=history))

    def _undone(self, why: str, unless: tuple[CutoverPhase, ...]) -> Cutover:
        """Return the record as it is ``unless`` it is in another phase: then undone."""
        now = self._record.load()
        return now if now.phase in unless else self._undo(now, why)

    def _stopping(self, cutover: Cutover) -> Cutover:
        """Return the record that is durable before the order to stop Plex."""
        plex, now = self._plex, self._clock()
        return msgspec.structs.replace(
            cutover,
            was_running=plex.may_run(),
            was_seen=plex.look() is not Sight.GONE,
            starting=list(plex.starting),
            stop_ordered=now,
            history=cutover.history.after_stop(now),
        )

    def _refuse(self, cutover: Cutover, request: CutoverRequest, error: CutoverRefused) -> None:
        """Undo a stop that came to nothing, and remember it."""
        self._tell("refused", f"Plex did not stop: {error.what}")
        if not isinstance(error, _SomethingLeft) and not self._ending.is_set():
            failure = StopFailure(
                ExitCode.CUTOVER, error.what[:1000], error.hint[:1000], timestamp(),
                request.circumstances,
            )  # fmt: skip
            history = cutover.history.after_failure(failure, is_stop_refused=True)
            cutover = msgspec.structs.replace(cutover, history=history)
        if isinstance(error, CommandFailed):
            cutover = msgspec.structs.replace(cutover, stop_ordered=None)
        try:
            self._undo(cutover, error.what)
        except CutoverRefused as later:  # it is tried again, and is not what went wrong
            self._tell("undo", f"Plex cannot be started yet: {later.what}")

    def _stop(self, cutover: Cutover) -> None:
        """Stop Plex and prove it.

        Raises:
            CutoverRefused: something of it is left.
        """
        self._tell("stop", f"Stopping Plex for {cutover.puller}")
        if cutover.was_running:
            self._plex.stop(self._limits.stop_seconds, self._ending)
        deadline = self._clock() + _LINGER
        while left := self._plex.left():
            if self._clock() > deadline or self._ending.is_set():
                raise _SomethingLeft(f"something of Plex is left: {'; '.join(left)}")
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
        committed = msgspec.structs.replace(committed, history=StopHistory())
        committed = self._record.save(committed)
        self._tell("committed", f"Committed snapshot {cutover.snapshot}: Plex stays stopped here")
        return committed

    def _undo(self, cutover: Cutover, why: str) -> Cutover:
        """Start Plex again; still ``undoing`` where it has not been seen running for a while."""
        if cutover.phase != "undoing":
            is_committed = cutover.phase == "committed"
            is_overdue = cutover.is_past_bound(self._clock())
            cutover = in_phase(cutover, "undoing", why=why)
            cutover = msgspec.structs.replace(cutover, is_overdue=is_overdue)
            self._restart.end()
            try:
                cutover = self._record.save(cutover)
                self._tell("undo", f"Undoing the cutover: {why}")
            except OSError:  # a disk that is full keeps nobody from starting Plex
                if is_committed:
                    raise
        self.fence.take_down()
        if cutover.was_running and not self._restart.is_done(cutover):
            return self._with_end_of_stop(cutover)
        over = self._record.save(ended(cutover))
        does = "Plex runs" if cutover.was_running else "Plex was not running before"
        self._tell("undone", f"The cutover is undone: {does}")
        return over

    def _with_end_of_stop(self, cutover: Cutover) -> Cutover:
        """Write down that the stop has ended, once it has: another process need not wait for it."""
        if cutover.stop_ordered is not None and self._restart.has_stop_ended:
            with suppress(OSError):  # a disk that is full keeps nobody from starting Plex
                return self._record.save(msgspec.structs.replace(cutover, stop_ordered=None))
        return cutover

    def _granted(self, cutover: Cutover, phase: CutoverPhase, **changes: str) -> Cutover:
        now = self._clock()
        granted = in_phase(cutover, phase, **changes)
        until = now + self._limits.lease_seconds
        if granted.bound:
            until = min(until, granted.bound)
        granted = msgspec.structs.replace(granted, granted=now, until=until)
        return self._record.save(granted)

    def _about(self, cutover: Cutover) -> CutoverStanding:
        return about(cutover, self._clock(), self._context.agent)
