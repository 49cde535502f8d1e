"""The cutover on the VM: Plex is stopped, kept stopped by a lease, and fenced off or started again.

Each step is durable before it is taken, and before it is acknowledged. A process that finds an
unfinished step finishes or undoes it. Nothing of that is in memory, because the service and
'plexodus-agent undo' are two processes. A lock separates them.

::

    STATE/cutover.json   the phase
    STATE/cutover.lock   held while a step is taken
    STATE/fence          while it exists, systemd does not start Plex
    STATE-witness/       a second cutover.json and fence: STATE may be restored or lost
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

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
from agent.cutover.stop_proof import SomethingLeft, StopProof
from agent.plex.service import CommandFailed, Sight
from shared.errors import CutoverEnded, CutoverRefused, SnapshotGone, StorageError
from shared.program.exit_codes import ExitCode
from shared.timestamps import timestamp
from shared.wire.protocol import StopFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.cutover.context import CutoverContext
    from agent.plex.service import PlexService
    from shared.wire.protocol import CutoverPhase, CutoverRequest, CutoverStanding


class CutoverControl:
    """Takes the steps. Its methods block: call them from a worker thread.

    All of them raise OSError if the state folder cannot be written, and StorageError if the record
    cannot be read.

    Args:
        state: the agent's state folder.
        plex: the service that is stopped and started.
        context: the rest of the agent.
    """

    def __init__(self, state: str, plex: PlexService, context: CutoverContext) -> None:
        self._record = CutoverRecord(state)
        self.fence = Fence(state)
        self._plex = plex
        self._context = context
        self._tell, self._clock = context.tell, context.clock
        self._ending = threading.Event()
        self._restart = PlexRestart(plex, context.stop_seconds, context.clock)
        self._proof = StopProof(plex, context)

    def standing(self) -> CutoverStanding:
        """Return the state of the cutover, without waiting."""
        return self._about(self._record.load())

    def is_plex_stopped(self) -> bool:
        """Return whether the agent has stopped Plex for a cutover, and it is still stopped."""
        try:
            now = self._record.load()
            return now.is_held(self._clock()) and self._proof.is_given(now)
        except (StorageError, CutoverRefused, OSError):
            return False

    def begin(self, request: CutoverRequest) -> CutoverStanding:
        """Stop Plex, prove it, and grant the lease. Do nothing if that was done.

        Raises:
            CutoverRefused: If Plex would not stop, or not stay stopped. It runs if it ran before.
            CutoverEnded: If the requested cutover was undone.
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
            bound = self._clock() + cutover.max_seconds if cutover.max_seconds else cutover.bound
            cutover = replace(cutover, stop_ordered=None, bound=bound)
            cutover = self._granted(cutover, run=self._plex.run())
            logs = self._context.logs_of_databases()
            left = f"not cleanly: {', '.join(logs)} moves, too" if logs else "no -wal"
            proof = "no process, no open port"
            if cutover.databases:
                proof += ", no open database"
            self._tell("stopped", f"Plex is stopped: {proof}, {left}")
            return self._about(cutover)

    def renew(self, name: str) -> CutoverStanding:
        """Extend the lease.

        Raises:
            CutoverEnded: If the cutover has ended.
        """
        with self._alone() as now:
            cutover = held(now, name, self._clock(), ("stopped",))
            return self._about(self._granted(cutover, since=cutover.since))

    def commit(self, name: str, snapshot: str) -> CutoverStanding:
        """Put the fence up, for good. A repeated request gets the same answer.

        Raises:
            CutoverEnded: If Plex runs again, or has run since it was stopped.
            SnapshotGone: If there is no such snapshot.
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
        """Start Plex again if it ran before. Do nothing if that was done.

        The undo is over when the phase is ``idle``. Until then, :meth:`tend` continues it.

        Args:
            name: name of the cutover.
            why: for the log.
            failure: a failure that a retry would meet again.

        Raises:
            CutoverEnded: If this cutover is not the current one, or is committed.
            CutoverRefused: If Plex does not start. The agent retries.
        """
        with self._alone() as now:
            if now.id != name or now.phase == "committed":
                raise CutoverEnded("there is no such cutover under way")
            if failure is not None:
                with suppress(OSError):  # Plex is started even if the disk is full
                    self._remember(now, now.history.after_failure(failure))
            return self._about(self._undone(why, unless=("idle",)))

    def lift(self, why: str, *, committed: bool) -> CutoverStanding:
        """Undo any cutover, for the administrator.

        Args:
            why: for the log.
            committed: whether to undo a committed one, too, and to remove the fence.

        Raises:
            CutoverRefused: If Plex does not start. The agent retries.
        """
        with self._alone() as now:
            if committed:
                with suppress(OSError):  # as above; a commit is not undone without a record
                    self._remember(now, StopHistory())
            done: tuple[CutoverPhase, ...] = ("idle",) if committed else ("idle", "committed")
            return self._about(self._undone(why, unless=done))

    def started(self) -> None:
        """Forget that a stop was refused: with a new start of the agent its rights may be others.

        A record without a copy gets one, because an earlier release wrote none.
        """
        with self._record.locked():
            now = self._record.load()
            if now.history.is_stop_refused:
                self._remember(now, StopHistory(now.history.stops, now.history.last))
            elif now.id and not self._record.has_witness():
                self._record.save(now)

    def tend(self) -> None:
        """Finish or undo an unfinished step, and a cutover whose lease has expired.

        Raises:
            PlexodusError: If that has to be retried.
        """
        if self._record.load().phase not in ("idle", "committed"):
            with self._alone():
                pass

    def guard(self) -> None:
        """Keep Plex stopped and fenced off after a commit, even without the state folder.

        The witness has the record, too.

        Raises:
            PlexodusError: If that has to be retried.
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
                self._plex.stop(self._context.stop_seconds, self._ending)
            if now.phase == "committed":
                with suppress(CutoverRefused):  # the log has it since the commit
                    self._plex.block_starts()

    def leave(self) -> bool:
        """Undo a cutover that is not committed, because no process would see its lease expire.

        A stop of Plex that is under way is given up. Return whether the undo is over.

        Raises:
            PlexodusError: If the agent's next start has to undo it.
        """
        self._ending.set()
        if self._record.load().phase not in ("idle", "committed"):
            return self.lift("the agent was stopped", committed=False).phase != "undoing"
        return True

    @contextmanager
    def _alone(self) -> Iterator[Cutover]:
        """Lock the record, finish or undo an unfinished step, and yield the record."""
        with self._record.locked():
            now = self._record.load()
            if is_to_be_undone(now, self._clock()):
                now = self._undo(now, why_undone(now, self._clock()))
            elif now.phase == "committing":
                now = self._finish_commit(now)
            yield now

    def _remember(self, cutover: Cutover, history: StopHistory) -> None:
        if history != cutover.history:
            self._record.save(replace(cutover, history=history))

    def _undone(self, why: str, unless: tuple[CutoverPhase, ...]) -> Cutover:
        now = self._record.load()
        return now if now.phase in unless else self._undo(now, why)

    def _stopping(self, cutover: Cutover) -> Cutover:
        """Return the record that is durable before the order to stop Plex."""
        plex, now = self._plex, self._clock()
        return replace(
            cutover,
            was_running=plex.may_run(),
            was_seen=plex.look() is not Sight.GONE,
            starting=list(plex.starting),
            container=plex.record(),
            databases=self._proof.databases(),
            stop_ordered=now,
            history=cutover.history.after_stop(now),
        )

    def _refuse(self, cutover: Cutover, request: CutoverRequest, error: CutoverRefused) -> None:
        """Undo a stop that failed, and remember the failure."""
        self._tell("refused", f"Plex did not stop: {error.what}")
        if not isinstance(error, SomethingLeft) and not self._ending.is_set():
            failure = StopFailure(
                ExitCode.CUTOVER, error.what[:1000], error.hint[:1000], timestamp(),
                request.circumstances,
            )  # fmt: skip
            history = cutover.history.after_failure(failure, is_stop_refused=True)
            cutover = replace(cutover, history=history)
        if isinstance(error, CommandFailed):
            cutover = replace(cutover, stop_ordered=None)
        try:
            self._undo(cutover, error.what)
        except CutoverRefused as later:  # a retry follows; the caller reports the first error
            self._tell("undo", f"Plex cannot be started yet: {later.what}")

    def _stop(self, cutover: Cutover) -> None:
        """Stop Plex, and raise :class:`CutoverRefused` if something of it is left."""
        self._tell("stop", f"Stopping Plex for {cutover.puller}")
        if cutover.was_running:
            self._plex.stop(self._context.stop_seconds, self._ending)
        self._proof.wait(cutover, self._ending)

    def _prove(self, cutover: Cutover) -> None:
        """Undo the cutover and raise :class:`CutoverEnded` if Plex was started meanwhile."""
        if about := self._proof.refute(cutover):
            self._undo(cutover, f"somebody has started Plex: {about}")
            raise CutoverEnded(f"somebody has started Plex on the VM meanwhile: {about}")

    def _finish_commit(self, cutover: Cutover) -> Cutover:
        """Put up the fence, then check Plex: nobody can start it after that check."""
        self.fence.put_up(cutover.puller)
        try:
            self._plex.block_starts()
        except CutoverRefused as error:
            self._tell("fence", f"Plex is stopped whenever it starts, because {error.what}")
        self._prove(cutover)
        committed = replace(in_phase(cutover, "committed"), history=StopHistory())
        committed = self._record.save(committed)
        self._tell("committed", f"Committed snapshot {cutover.snapshot}: Plex stays stopped here")
        return committed

    def _undo(self, cutover: Cutover, why: str) -> Cutover:
        """Start Plex again. The phase stays ``undoing`` until Plex was seen running for a while."""
        if cutover.phase != "undoing":
            is_committed = cutover.phase == "committed"
            is_overdue = cutover.is_past_bound(self._clock())
            cutover = replace(in_phase(cutover, "undoing", why=why), is_overdue=is_overdue)
            self._restart.end()
            try:
                cutover = self._record.save(cutover)
                self._tell("undo", f"Undoing the cutover: {why}")
            except OSError:  # Plex is started even if the disk is full
                if is_committed:
                    raise
        self.fence.take_down()
        if cutover.container is not None:
            self._plex.allow_starts(cutover.container)
        if cutover.was_running and not self._restart.is_done(cutover):
            return self._with_end_of_stop(cutover)
        over = self._record.save(ended(cutover))
        does = "Plex runs" if cutover.was_running else "Plex was not running before"
        self._tell("undone", f"The cutover is undone: {does}")
        return over

    def _with_end_of_stop(self, cutover: Cutover) -> Cutover:
        """Record the end of the stop once it was seen, so that no other process waits for it."""
        if cutover.stop_ordered is not None and self._restart.has_stop_ended:
            with suppress(OSError):  # Plex is started even if the disk is full
                return self._record.save(replace(cutover, stop_ordered=None))
        return cutover

    def _granted(self, cutover: Cutover, **changes: str) -> Cutover:
        now = self._clock()
        until = now + self._context.lease_seconds
        if cutover.bound:
            until = min(until, cutover.bound)
        granted = in_phase(cutover, "stopped", **changes)
        return self._record.save(replace(granted, granted=now, until=until))

    def _about(self, cutover: Cutover) -> CutoverStanding:
        return about(cutover, self._clock(), self._context.agent)
