"""The puller's side of a cutover: Plex is stopped for us, and the volume knows by which name.

What the volume says decides what a killed puller's next run does (docs/cutover.md):

- ``transferring`` with a cutover's name: Plex may be stopped for us; if it is, it is started again
- ``committing``: all is verified, and the agent may have committed: it is asked before all else
- ``publishing``: it had; it is asked whether that is still so (:mod:`initpuller.pull.pending`)
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from initpuller.pull.stop_terms import StopTerms
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
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from initpuller.agent_client.retry import Retrier
    from initpuller.volume.records.pull_record import PullRecord
    from shared.wire.protocol import CutoverPhase, CutoverStanding, StopFailure

_log = structlog.get_logger("puller")

_RENEWALS = 4
"""In the time of one lease; each may take as long as lies between two."""
_SOON = 1.0
"""Seconds after a renewal that failed."""
_LOOK_SECONDS = 1.0
_LOOKS = 40
"""Times that an agent is asked which is still starting Plex after an earlier cutover."""
_FRESH_SECONDS = 2.0
"""An older answer is no ground for publishing: this process may have been frozen since."""
_ASKS = 3
"""Times that the agent is asked before its answers count as too slow."""


class CutoverWire(Protocol):
    """What is asked of the agent; see :class:`initpuller.agent_client.cutover.CutoverClient`."""

    async def standing(self) -> CutoverStanding:
        """Where it stands."""

    async def stop(self, request: CutoverRequest) -> CutoverStanding:
        """Have Plex stopped."""

    async def renew(self, name: str) -> CutoverStanding:
        """Have the lease renewed."""

    async def commit(self, name: str, snapshot: str) -> CutoverStanding:
        """Have Plex stay stopped."""

    async def undo(self, name: str, failure: StopFailure | None = None) -> CutoverStanding:
        """Have Plex started again."""


class Cutover:
    """The cutovers of one run, one after the other.

    Args:
        record: of the volume.
        wire: the agent.
        retrier: how to try again.
        terms: on which Plex is stopped.
    """

    def __init__(
        self,
        record: PullRecord,
        wire: CutoverWire,
        retrier: Retrier,
        terms: StopTerms = StopTerms(),  # noqa: B008 - it cannot be changed
    ) -> None:
        self._terms = terms
        self._record = record
        self._wire = wire
        self._retrier = retrier
        self._is_in_doubt = False
        self._since: float | None = None
        self._committed_at: float | None = None
        """When the request was sent whose answer said last that the cutover is committed."""

    def downtime(self) -> float | None:
        """Seconds since this run knew that Plex had stopped for it; None if it was not told so."""
        return None if self._since is None else time.monotonic() - self._since

    async def end_earlier(self) -> None:
        """Have Plex started again if a run that was killed had it stopped.

        What that run brought is read back first, and Plex is not down for it.

        Raises:
            CutoverRefused: this library has moved already, or Plex does not start.
            PlexodusError: the agent cannot be asked.
        """
        state = self._record.state
        standing = await self._retrier.run("where the cutover stands", self._wire.standing)
        if standing.phase == "committed":
            raise CutoverRefused(
                f"on the VM: this library has moved already, {standing.since}, to"
                f" {standing.puller}",
                hint="To run Plex on the VM again, run 'plexodus-agent undo' there.",
            )
        if state is not None and state.cutover == standing.id:
            await self._undo_unless_over(standing)

    async def check_repeated(self) -> None:
        """Make sure that Plex is not stopped for a failure that is known already.

        Raises:
            RepeatedFailure: nothing has changed since the last one.
            CutoverRefused: Plex was stopped too often for nothing.
            PlexodusError: the agent cannot be asked.
        """
        standing = await self._retrier.run("where the cutover stands", self._wire.standing)
        terms = self._terms
        if terms.circumstances:
            circumstances = terms.circumstances | {"agent": standing.agent}
            terms = replace(terms, circumstances=circumstances)
        state = self._record.state
        retry = terms.check(standing, None if state is None else state.failure)
        self._terms = replace(terms, retry_failed=retry)

    async def withdraw(self, name: str) -> None:
        """Undo what an earlier run was about to commit: this run must not end the move.

        Args:
            name: of the cutover.

        Raises:
            CutoverRefused: it was committed.
            PlexodusError: the agent cannot be asked.
        """
        standing = await self._retrier.run("where the cutover stands", self._wire.standing)
        if standing.id != name:
            return
        if standing.phase in ("committing", "committed"):
            raise CutoverRefused(
                "this library has moved, and Plex on the VM stays stopped",
                path=self._record.layout.staging,
                hint="Run pull without --rehearse and --until: it publishes what is here.",
            )
        await self._undo_unless_over(standing)

    async def _undo_unless_over(self, standing: CutoverStanding) -> None:
        if standing.phase in ("stopping", "stopped"):
            with suppress(CutoverEnded):
                await self._retrier.run("the cutover's end", lambda: self._wire.undo(standing.id))

    async def release(self) -> None:
        """Have Plex started again at once if it is stopped for this move and not committed.

        An agent that cannot be reached does it when the lease expires.

        Raises:
            CutoverRefused: Plex does not start; the agent tries again.
            PlexodusError: the agent does not accept the request.
        """
        state = self._record.state
        if state is None or not state.cutover or state.phase == "publishing":
            return
        name = state.cutover
        try:
            await self._retrier.run("the cutover's end", lambda: self._wire.undo(name))
        except CutoverEnded:
            _log.info("the cutover is over, or committed", cutover=name)
        except AgentUnreachable as error:
            _log.warning("Plex starts when the lease expires", reason=str(error))

    async def is_committed(self) -> bool:
        """Return whether exactly the cutover that the volume names is committed, by a fresh answer.

        Raises:
            AgentUnreachable: it cannot be asked, or takes too long to answer.
            PlexodusError: it does not accept the request.
        """
        name = self._record.current.cutover
        for _ in range(_ASKS):
            if self._is_fresh():
                return True
            standing = await self._retrier.run("whether it is still committed", self._standing)
            if (standing.id, standing.phase) != (name, "committed"):
                return False
        if self._is_fresh():
            return True
        raise AgentUnreachable(
            f"the agent took more than {_FRESH_SECONDS:.0f} s to say whether the cutover is still"
            " committed, each time",
            hint="Run again when the network and both machines have less to do.",
        )

    def _is_fresh(self) -> bool:
        asked = self._committed_at
        return asked is not None and _boottime() - asked < _FRESH_SECONDS

    async def _standing(self) -> CutoverStanding:
        asked = _boottime()
        standing = await self._wire.standing()
        self._committed_at = asked if standing.phase == "committed" else None
        return standing

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Inside, Plex is stopped and stays so; what goes wrong inside has it started again.

        Raises:
            CutoverEnded: it was started again; what goes on inside is cancelled then.
            CutoverRefused: it cannot be stopped, or would not stay so.
            PlexodusError: whatever else; the lease expires where the agent cannot be told.
        """
        await self._wait_for_restart()
        name, stopped, terms = self._named(), None, self._terms
        request = CutoverRequest(
            name,
            socket.gethostname(),
            terms.max_downtime,
            terms.circumstances,
            terms.retry_failed,
        )
        self._is_in_doubt = False
        try:
            standing = await self._retrier.run("the stop of Plex", lambda: self._wire.stop(request))
            _expect(standing, name, "stopped")
            self._since = stopped = time.monotonic()
            _log.info("Plex is stopped", lease_seconds=standing.seconds)
            async with self._renewed(name, standing.seconds / _RENEWALS):
                yield
        except BaseException as error:
            if not self._is_in_doubt:
                failure = self._terms.remembered(error) if stopped is not None else None
                if failure is not None:
                    await asyncio.to_thread(self._remember, failure)
                await self._give_up(name, failure)
            raise

    async def _wait_for_restart(self) -> None:
        """Wait while the agent watches the Plex that it has started again: it stops none then."""
        for _ in range(_LOOKS):
            standing = await self._retrier.run("where the cutover stands", self._wire.standing)
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

        async def ask() -> CutoverStanding:
            asked = _boottime()
            standing = await self._wire.commit(name, snapshot)
            self._committed_at = asked
            return standing

        try:
            _expect(await self._retrier.run("the commit", ask), name, "committed")
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
    async def _renewed(self, name: str, every: float) -> AsyncIterator[None]:
        """Renew the lease all the time; whoever is inside is cancelled if that fails for good."""
        inside = asyncio.current_task()
        ended: list[PlexodusError] = []

        async def renew() -> None:
            pause, deadline = every, time.monotonic() + self._terms.max_downtime
            while True:
                await asyncio.sleep(pause)
                pause = every
                try:
                    self._check_downtime(deadline)
                    async with asyncio.timeout(every):
                        await self._wire.renew(name)
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

    def _check_downtime(self, deadline: float) -> None:
        """Let the agent be asked for no more time than the user allows.

        Raises:
            CutoverRefused: it was stopped for that long.
        """
        if time.monotonic() >= deadline and not self._is_in_doubt:
            raise CutoverRefused(
                f"Plex was stopped for {duration(self._terms.max_downtime)}, the most that"
                " --max-downtime allows, and is started again",
                hint="Find out what takes so long: 'plexodus-agent log' on the VM has the passes."
                " What was brought is kept. Run pull again, or raise --max-downtime.",
            )

    async def _give_up(self, name: str, failure: StopFailure | None) -> None:
        """Have Plex started again at once; if we cannot, the lease's end does it."""
        with suppress(PlexodusError):
            undo = asyncio.ensure_future(self._wire.undo(name, failure))
            standing = await asyncio.shield(undo)
            _log.info("Plex is started on the VM again", phase=standing.phase)


def _boottime() -> float:
    """Return seconds since the machine started: time goes on in a process that is frozen."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _expect(standing: CutoverStanding, name: str, phase: CutoverPhase) -> None:
    if (standing.id, standing.phase) != (name, phase):
        raise ProtocolViolation(f"a cutover that is {standing.phase}, not {phase}")
