"""The puller's side of a cutover: the agent stops Plex, and the volume's record names the cutover.

After a kill, that record decides what the next run does (docs/cutover.md):

- ``transferring`` with a cutover's name: if Plex is still stopped for it, Plex is started again
- ``committing``: everything is verified, and the agent may have committed, so it is asked first
- ``publishing``: it had; it is asked whether that is still so (:mod:`initpuller.pull.pending`)
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from initpuller.cancellation import in_thread
from initpuller.pull.permission import ASKS, FRESH_SECONDS, Permission
from initpuller.volume.publish.unpublish import unpublish
from initpuller.volume.records.transitions import committed, name_cutover, remember_failure
from shared.checks import duration
from shared.errors import (
    AgentUnreachable,
    CutoverEnded,
    CutoverRefused,
    PlexodusError,
    ProtocolViolation,
    SnapshotGone,
)
from shared.timestamps import boottime
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from initpuller.agent_client.cutover import CutoverClient
    from initpuller.agent_client.retry import Retrier
    from initpuller.pull.stop_terms import StopTerms
    from initpuller.volume.records.pull_record import PullRecord
    from shared.wire.protocol import CutoverPhase, CutoverStanding, StopFailure

_log = structlog.get_logger("puller")

_RENEWALS = 4
"""Renewals in the time of one lease; each may take as long as the time between two."""
_SOON = 1.0
"""Seconds until the next renewal after one that failed."""
_LOOK_SECONDS = 1.0
_LOOKS = 40
"""Questions to an agent that is still starting Plex after an earlier cutover."""


class Cutover:
    """The cutovers of one run, one after the other.

    Every request raises AgentUnreachable, or another PlexodusError if the agent does not accept it.
    """

    def __init__(self, record: PullRecord, client: CutoverClient, retrier: Retrier) -> None:
        self._record = record
        self._client = client
        self._retrier = retrier
        self._is_in_doubt = False
        self._since: float | None = None
        self.permission = Permission(record)
        """By the last answer that the cutover in the record is committed, among others."""
        self._copied: str | None = None if record.state is None else ""
        """The move that was committed before this pull began; None before the first question."""

    def downtime(self) -> float | None:
        """Return the seconds since the agent said that Plex had stopped; None if it never did."""
        return None if self._since is None else time.monotonic() - self._since

    async def end_earlier(self) -> None:
        """Have Plex started again if it is still stopped for a run that was killed.

        The content that the earlier run transferred is read back next, while Plex runs.

        Raises:
            CutoverRefused: this library has moved already, or Plex does not start.
        """
        state = self._record.state
        standing = await self._ask_phase()
        if standing.phase == "committed":
            raise CutoverRefused(
                f"on the VM: this library has moved already, {standing.since}, to"
                f" {standing.puller}",
                hint="To run Plex on the VM again, run 'plexodus-agent undo' there.",
            )
        if state is not None and state.cutover == standing.id:
            await self._undo_unless_over(standing)

    async def require_none(self) -> tuple[str, str]:
        """Make sure that the agent will not start Plex by itself, because a person has stopped it.

        A cutover of an earlier run on this volume is undone. If the library has moved before this
        pull began, the user wants another copy. If an earlier run began it, which the volume's
        record shows, nobody knows that: then no other move is accepted.

        Return phase and name of the last cutover. If an earlier answer was the same, there was none
        since, by whose end the agent has started Plex.

        Raises:
            CutoverRefused: another cutover is under way, an undo does not end, or the library has
                moved to another volume meanwhile.
        """
        state, standing, looks = self._record.state, await self._ask_phase(), 0
        if self._copied is None:
            self._copied = standing.id if standing.phase == "committed" else ""
        while standing.phase not in ("idle", "committed"):
            is_ours = state is not None and state.cutover == standing.id
            if looks == _LOOKS or not (is_ours or standing.phase == "undoing"):
                raise _under_way(standing)
            if is_ours:
                await self._undo_unless_over(standing)
            await asyncio.sleep(_LOOK_SECONDS)
            standing, looks = await self._ask_phase(), looks + 1
        if standing.phase == "committed" and standing.id != self._copied:
            raise _moved_elsewhere(standing, self._record.layout.state)
        return standing.phase, standing.id

    async def may_be_committed(self) -> bool:
        """Return whether the cutover in the record is still under way, or committed."""
        standing, name = await self._ask_phase(), self._record.current.cutover
        return standing.id == name and standing.phase in ("stopped", "committing", "committed")

    async def is_kept(self) -> bool:
        """Return whether the cutover in the record is committed, and not undone."""
        state = self._record.state
        if state is None or not state.cutover:
            return False
        standing = await self._ask_phase()
        return (standing.id, standing.phase) == (state.cutover, "committed")

    async def check_repeated(self, terms: StopTerms) -> StopTerms:
        """Make sure that Plex is not stopped for a failure that is known already.

        Returns:
            The terms, with what the agent says about itself, and with whether it must stop Plex
            whatever it remembers.

        Raises:
            RepeatedFailure, CutoverRefused: see :meth:`StopTerms.check`.
        """
        standing = await self._ask_phase()
        if terms.circumstances:
            circumstances = terms.circumstances | {"agent": standing.agent}
            terms = replace(terms, circumstances=circumstances)
        state = self._record.state
        retry = terms.check(standing, None if state is None else state.failure)
        return replace(terms, retry_failed=retry)

    async def withdraw(self, name: str) -> None:
        """Undo the cutover that an earlier run was about to commit: this run must not end the move.

        Raises:
            CutoverRefused: it was committed.
        """
        standing = await self._ask_phase()
        if standing.id != name:
            return
        if standing.phase in ("committing", "committed"):
            raise CutoverRefused(
                "this library has moved, and Plex on the VM stays stopped",
                path=self._record.layout.staging,
                hint="Run pull without --rehearse and --until: it publishes what is here.",
            )
        await self._undo_unless_over(standing)

    async def _ask_phase(self) -> CutoverStanding:
        return await self._retrier.run("where the cutover stands", self._client.standing)

    async def _undo_unless_over(self, standing: CutoverStanding) -> None:
        if standing.phase in ("stopping", "stopped"):
            with suppress(CutoverEnded):
                await self._retrier.run("the cutover's end", lambda: self._client.undo(standing.id))

    async def release(self) -> None:
        """Have Plex started again at once if it is stopped for this move and not committed.

        An agent that cannot be reached does it when the lease expires.

        Raises:
            CutoverRefused: Plex does not start; the agent tries again.
        """
        state = self._record.state
        if state is None or not state.cutover or state.phase == "publishing":
            return
        name = state.cutover
        try:
            await self._retrier.run("the cutover's end", lambda: self._client.undo(name))
        except CutoverEnded:
            _log.info("the cutover is over, or committed", cutover=name)
        except AgentUnreachable as error:
            _log.warning("Plex starts when the lease expires", reason=str(error))

    async def is_committed(self) -> bool:
        """Return whether exactly the cutover in the record is committed, by a fresh answer.

        Raises:
            AgentUnreachable: it cannot be asked, or takes too long to answer.
        """
        for _ in range(ASKS):
            if self.permission.is_valid():
                return True
            if not await self._retrier.run("whether it is still committed", self._is_committed):
                return False
        if self.permission.is_valid():
            return True
        raise AgentUnreachable(
            f"the agent took more than {FRESH_SECONDS:.0f} s to say whether the cutover is still"
            " committed, each time",
            hint="Run again when the network and both machines have less to do.",
        )

    async def _is_committed(self) -> bool:
        asked = boottime()
        standing = await self._client.standing()
        is_ours = (standing.id, standing.phase) == (self._record.current.cutover, "committed")
        if is_ours:
            self.permission.give(asked)
        return is_ours

    @asynccontextmanager
    async def stopped(self, terms: StopTerms) -> AsyncIterator[None]:
        """Keep Plex stopped inside this context; after a failure inside, have it started again.

        Raises:
            CutoverEnded: Plex was started again; the work inside is cancelled then.
            CutoverRefused: Plex cannot be stopped, or would not stay so.
        """
        await self._wait_for_restart()
        name, stopped = self._named(), None
        host, limit, force = socket.gethostname(), terms.max_downtime, terms.retry_failed
        request = CutoverRequest(name, host, limit, terms.circumstances, force)
        self._is_in_doubt = False
        try:
            standing = await self._retrier.run(
                "the stop of Plex", lambda: self._client.stop(request)
            )
            _expect(standing, name, "stopped")
            self._since = stopped = time.monotonic()
            _log.info("Plex is stopped", lease_seconds=standing.seconds)
            async with self._renewed(name, standing.seconds / _RENEWALS, terms):
                yield
        except BaseException as error:
            if not self._is_in_doubt:
                failure = terms.remembered(error) if stopped is not None else None
                if failure is not None:
                    await in_thread(self._remember, failure)
                await self._give_up(name, failure)
            raise

    async def _wait_for_restart(self) -> None:
        """Wait while the agent watches the Plex that it starts again: it refuses a stop then."""
        for _ in range(_LOOKS):
            standing = await self._ask_phase()
            if standing.phase != "undoing":
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def commit(self) -> None:
        """Have the agent keep Plex stopped for good; record ``publishing`` then.

        The volume's record must say ``committing``.

        Raises:
            CutoverEnded: Plex runs, or has run: what is on the volume is out of date.
            AgentUnreachable: nobody knows whether it has committed; the next run asks again.
        """
        state = self._record.current
        name, snapshot = state.cutover, state.snapshot.id
        self._is_in_doubt = True

        async def ask() -> None:
            asked = boottime()
            _expect(await self._client.commit(name, snapshot), name, "committed")
            self.permission.give(asked)

        try:
            await self._retrier.run("the commit", ask)
        except (CutoverEnded, CutoverRefused, SnapshotGone):
            self._is_in_doubt = False
            unpublish(self._record)
            raise
        self._record.apply(committed)
        _log.info("committed: Plex stays stopped on the VM")

    def _named(self) -> str:
        """Return a new cutover's name, which is durable before the agent hears of it."""
        return self._record.apply(name_cutover, secrets.token_hex(16)).cutover

    def _remember(self, failure: StopFailure) -> None:
        """Record a failure on the volume; if the volume is full, the agent alone has it."""
        with suppress(PlexodusError):
            self._record.apply(remember_failure, failure)

    @asynccontextmanager
    async def _renewed(self, name: str, every: float, terms: StopTerms) -> AsyncIterator[None]:
        """Renew the lease regularly; cancel the work inside if that fails for good."""
        inside = asyncio.current_task()
        ended: list[PlexodusError] = []

        async def renew() -> None:
            pause, deadline = every, time.monotonic() + terms.max_downtime
            while True:
                await asyncio.sleep(pause)
                pause = every
                try:
                    self._check_downtime(deadline, terms)
                    async with asyncio.timeout(every):
                        await self._client.renew(name)
                except (AgentUnreachable, TimeoutError) as error:
                    pause = min(_SOON, every)
                    reason = str(error) or f"no answer within {every:.0f} s"
                    _log.warning("the lease was not renewed, trying again", reason=reason)
                except PlexodusError as error:
                    ended.append(error)
                    if inside is not None and not self._is_in_doubt:
                        inside.cancel()
                    return

        renewing = asyncio.create_task(renew())
        try:
            yield
        except asyncio.CancelledError:
            if ended and inside is not None and inside.uncancel() == 0:
                raise ended[0] from None
            raise
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    def _check_downtime(self, deadline: float, terms: StopTerms) -> None:
        """Raise CutoverRefused if Plex was stopped for as long as the user allows."""
        if time.monotonic() >= deadline and not self._is_in_doubt:
            raise CutoverRefused(
                f"Plex was stopped for {duration(terms.max_downtime)}, the most that"
                " --max-downtime allows, and is started again",
                hint="Find out what takes so long: 'plexodus-agent log' on the VM has the passes."
                " What was transferred is kept. Run pull again, or raise --max-downtime.",
            )

    async def _give_up(self, name: str, failure: StopFailure | None) -> None:
        """Have Plex started again at once; if the agent cannot be reached, the lease expires."""
        with suppress(PlexodusError):
            undo = asyncio.ensure_future(self._client.undo(name, failure))
            standing = await asyncio.shield(undo)
            _log.info("Plex is started on the VM again", phase=standing.phase)


def _under_way(standing: CutoverStanding) -> CutoverRefused:
    return CutoverRefused(
        f"a cutover is under way for {standing.puller} ({standing.phase}): the agent may start Plex"
        " after it",
        hint="Wait until 'plexodus-agent status' on the VM says that it is over. Then stop Plex and"
        " run this again.",
    )


def _moved_elsewhere(standing: CutoverStanding, record: str) -> CutoverRefused:
    return CutoverRefused(
        f"on the VM: this library has moved meanwhile, {standing.since}, to {standing.puller}; a"
        " second copy would be a second server with its identity",
        path=record,
        hint="Use that one. If you want a second copy, remove this file and run this again: the"
        " transfer then begins at the start.",
    )


def _expect(standing: CutoverStanding, name: str, phase: CutoverPhase) -> None:
    if (standing.id, standing.phase) != (name, phase):
        raise ProtocolViolation(f"a cutover that is {standing.phase}, not {phase}")
