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
from collections import deque
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
    granted,
    held,
    in_phase,
    is_to_be_undone,
    why_undone,
)
from agent.cutover.stop_history import StopHistory, check_repeated
from agent.cutover.stop_proof import SomethingLeft, StopProof
from agent.plex.service import NotBegun
from shared.errors import CutoverEnded, CutoverRefused, SnapshotGone, StorageError
from shared.timestamps import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.cutover.context import CutoverContext
    from agent.plex.service import PlexService
    from shared.wire.protocol import CutoverPhase, CutoverRequest, CutoverStanding, StopFailure

_WITHDRAWN = 256
"""Most names of cutovers that are remembered because they were undone before they began."""


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
        self._withdrawn = deque[str](maxlen=_WITHDRAWN)
        self._restart = PlexRestart(plex, context.stop_seconds, context.clock)
        self._proof = StopProof(plex, context)

    def standing(self) -> CutoverStanding:
        """Return the state of the cutover, without waiting."""
        return self._about(self._record.load())

    def confirmed(self) -> CutoverStanding:
        """Return the state for a puller, which may publish because of it.

        So what is settled, ``idle`` or ``committed``, is made durable first. That is an error if
        record and fence may have been removed by hand.
        """
        while (now := self._record.load()).phase in ("idle", "committed"):
            if self._record.is_durable():
                break
            self._record.require_present()
            self._renew_record()
        return self._about(now)

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
            if request.id in self._withdrawn:
                raise CutoverEnded("this cutover was undone before it began")
            check_repeated(now.history, request, self._clock())
            self._plex.check_fence(self.fence.path)
            cutover = self._proof.before_stop(cutover)
            if self._ending.is_set():  # tested last: the checks take seconds
                raise CutoverRefused("the agent is being stopped")
            cutover = self._record.save(cutover)
            try:
                run = self._stop(cutover)
            except CutoverRefused as error:
                self._refuse(cutover, request, error)
                raise
            bound = self._clock() + cutover.max_seconds if cutover.max_seconds else cutover.bound
            cutover = replace(cutover, stop_ordered=None, bound=bound)
            cutover = self._granted(cutover, run=run)
            logs = self._context.logs_of_databases()
            left = f"not cleanly: {', '.join(logs)} moves, too" if logs else "no -wal"
            self._tell("stopped", f"Plex is stopped: {self._proof.words(cutover)}, {left}")
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
            CutoverEnded: If Plex runs again, or has run since it was stopped, or if nobody can
                find that out.
            CutoverRefused: As above, if Plex does not start. The agent retries.
            SnapshotGone: If there is no such snapshot.
        """
        with self._alone() as now:
            cutover = held(now, name, self._clock(), ("stopped", "committed"))
            if cutover.phase == "committed":
                if not self._record.is_durable():
                    cutover = self._record.save(cutover)
                return self._about(cutover)
            if not self._context.has_cold(snapshot):
                raise SnapshotGone("there is no cold snapshot of this name to commit")
            self._prove(cutover)
            cutover = self._record.save(in_phase(cutover, "committing", snapshot=snapshot))
            return self._about(self._finish_commit(cutover))

    def undo(self, name: str, why: str, failure: StopFailure | None = None) -> CutoverStanding:
        """Start Plex again if it ran before. Do nothing if that was done.

        The undo is over when the phase is ``idle``. Until then, :meth:`tend` continues it. A late
        request to begin this cutover is refused. A commit that was interrupted is undone, too:
        no puller has the answer that it is committed.

        Args:
            name: name of the cutover.
            why: for the log.
            failure: a failure that a retry would meet again.

        Raises:
            CutoverEnded: If this cutover is not the current one, or is committed.
            CutoverRefused: If Plex does not start. The agent retries.
        """
        self._withdrawn.append(name)
        with self._alone(finishes_commit=False) as now:
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
        with self._alone(finishes_commit=False) as now:
            if committed:
                with suppress(OSError):  # as above; a commit is not undone without a record
                    self._remember(now, StopHistory())
            done: tuple[CutoverPhase, ...] = ("idle",) if committed else ("idle", "committed")
            return self._about(self._undone(why, unless=done))

    def started(self) -> None:
        """Forget that a stop was refused: since its last start, the agent may have other rights."""
        with self._record.locked():
            now = self._record.load()
            if now.history.is_stop_refused:
                self._remember(now, StopHistory(now.history.stops, now.history.last))

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

        The record is written again if a copy of it is missing, damaged or outdated: that of an
        earlier release is, or one that did not fit on a full disk.

        Raises:
            PlexodusError: If that has to be retried.
        """
        try:
            self._keep_stopped()
        finally:
            self._renew_record()

    def _keep_stopped(self) -> None:
        if self._record.load().phase != "committed":
            return
        with self._alone() as now:
            if now.phase != "committed":
                return
            try:
                if not self.fence.is_whole() and not self._record.may_be_removed():
                    self.fence.put_up(now.puller)
            finally:
                if not self._plex.is_stop_under_way() and self._plex.is_running():
                    about = "Plex runs though its library has moved: it is stopped again"
                    self._tell("fence", about)
                    self._plex.stop(self._context.stop_seconds, self._ending)
                with suppress(CutoverRefused):  # the log has it since the commit
                    self._plex.block_starts()

    def _renew_record(self) -> None:
        """Write the record again, unless each copy is known to be durable."""
        if self._record.is_removed(self._clock()):
            with self._record.locked():
                if self._record.may_be_removed():
                    self.fence.take_down()
                    self._record.save(Cutover(serial=self._record.load().serial))
            self._tell("record", "The record and the fence were removed by hand: nothing is undone")
        elif not (self._record.may_be_removed() or self._record.is_durable()):
            was_behind = self._record.is_behind()
            with self._alone() as now:
                self._record.save(now)
            if was_behind:
                about = f"The state folder was restored or lost; the record is back: {now.phase}"
                self._tell("record", about)

    def leave(self) -> bool:
        """Undo a cutover that is not committed, because no process would see its lease expire.

        A stop of Plex that is under way is given up. Return whether the undo is over.

        Raises:
            PlexodusError: If the agent's next start has to undo it.
        """
        self._ending.set()
        # Reads the record with the lock: a stop that begins right now has to be seen.
        return self.lift("the agent was stopped", committed=False).phase != "undoing"

    @contextmanager
    def _alone(self, *, finishes_commit: bool = True) -> Iterator[Cutover]:
        """Lock the record, finish or undo an unfinished step, and yield the record.

        An undo does not finish a commit: the cutover may be ``committing`` when it is yielded.
        """
        with self._record.locked():
            now = self._record.load()
            is_open = now.phase == "committing" and finishes_commit
            is_unproven = is_open and not self._proof.can_compare(now)
            if is_unproven or is_to_be_undone(now, self._clock()):
                now = self._undo(now, why_undone(now, self._clock()))
            elif is_open:
                try:
                    now = self._finish_commit(now)
                except CutoverEnded:  # it is undone
                    now = self._record.load()
            yield now

    def _remember(self, cutover: Cutover, history: StopHistory) -> None:
        if history != cutover.history:
            self._record.save(replace(cutover, history=history))

    def _undone(self, why: str, unless: tuple[CutoverPhase, ...]) -> Cutover:
        now = self._record.load()
        return now if now.phase in unless else self._undo(now, why)

    def _refuse(self, cutover: Cutover, request: CutoverRequest, error: CutoverRefused) -> None:
        """Undo a stop that failed, and remember the failure."""
        self._tell("refused", f"Plex did not stop: {error.what}")
        if not isinstance(error, SomethingLeft) and not self._ending.is_set():
            history = cutover.history.after_refusal(error, request, timestamp())
            cutover = replace(cutover, history=history)
        if isinstance(error, NotBegun):
            cutover = replace(cutover, stop_ordered=None)
        try:
            self._undo(cutover, error.what)
        except CutoverRefused as later:  # a retry follows; the caller reports the first error
            self._tell("undo", f"Plex cannot be started yet: {later.what}")

    def _stop(self, cutover: Cutover) -> str:
        """Stop Plex, and return the identifier of its last start.

        Raises:
            SomethingLeft: If something of Plex is left, or may be.
            CutoverRefused: If the order to stop fails.
        """
        self._tell("stop", f"Stopping Plex for {cutover.puller}")
        if cutover.was_running:
            self._plex.stop(self._context.stop_seconds, self._ending)
        return self._proof.wait(cutover, self._ending)

    def _prove(self, cutover: Cutover) -> None:
        """Undo the cutover and raise :class:`CutoverEnded` unless Plex is shown to be stopped.

        The puller discards the move when it gets that answer. So no later process may commit it,
        and the undo has to be durable.
        """
        if not (why := self._proof.refute(cutover)):
            return
        try:
            self._undo(cutover, why)
        finally:
            if not self._record.is_durable():
                self._record.save(self._record.load())
        raise CutoverEnded(why)

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
        self.fence.require_down()
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
        lease = self._context.lease_seconds
        return self._record.save(granted(cutover, self._clock(), lease, **changes))

    def _about(self, cutover: Cutover) -> CutoverStanding:
        return about(cutover, self._clock(), self._context.agent)
