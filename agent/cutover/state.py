"""The phases of a cutover and their transitions: the table of docs/cutover.md, without any I/O.

::

    idle ──begin──► stopping ──stopped──► stopped ──commit──► committing ──fenced──► committed
      ▲                │                    │ ▲ renew            │                      │
      │                ▼                    ▼                    ▼                      ▼
      └──restarted── undoing ◄─────────────────────────────────────────── (plexodus-agent undo)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from agent.cutover.stop_history import StopHistory
from shared.errors import CutoverEnded, CutoverRefused
from shared.timestamps import timestamp
from shared.wire.protocol import CutoverPhase, CutoverStanding

if TYPE_CHECKING:
    from shared.wire.protocol import CutoverRequest

_OVER = "Plex on the VM was started again"


class Cutover(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The record that is durable before a step is taken, and before it is acknowledged."""

    phase: CutoverPhase = "idle"
    id: str = ""
    """The puller's name for it; of the last one, while idle."""
    puller: str = ""
    since: str = ""
    """When this phase began: RFC 3339, UTC."""
    was_running: bool = False
    """Before the cutover, as far as one can tell: what an undo restores."""
    starting: list[str] = []
    """By which command: also where the settings cannot be read by then."""
    run: str = ""
    """Which start of Plex was stopped, where the service manager tells: another one is a change."""
    granted: float = 0.0
    """When the lease was last renewed: seconds of CLOCK_BOOTTIME, which nobody can set."""
    until: float = 0.0
    snapshot: str = ""
    """What was committed."""
    why: str = ""
    """Why the last one ended, while idle or undoing."""
    serial: int = 0
    """Grows with each step: of two copies of the record the one with the higher number counts."""
    was_seen: bool = False
    """Plex could be seen before it was stopped: so a restart has to be seen as well."""
    stop_ordered: float | None = None
    """When the stop was ordered (CLOCK_BOOTTIME); None once its end was seen."""
    max_seconds: float = 0.0
    """How long Plex may stay stopped, whatever is renewed; 0: no limit."""
    bound: float = 0.0
    """When that time is over, by CLOCK_BOOTTIME; 0: never."""
    is_overdue: bool = False
    """That time has passed: the puller is not to try again at once."""
    history: StopHistory = StopHistory()
    """Of earlier stops, whoever they were for."""

    def is_held(self, now: float) -> bool:
        """Whether the lease holds. Before ``granted`` is after a reboot: it does not."""
        return self.phase in ("stopped", "committing") and self.granted <= now < self.until

    def is_past_bound(self, now: float) -> bool:
        """Return whether Plex has been stopped for as long as the pull allows."""
        return self.phase == "stopped" and 0.0 < self.bound <= now


def begun(cutover: Cutover, request: CutoverRequest, since: str) -> Cutover:
    """After ``POST /v1/cutover``: stopping, or what is there if it was asked for before.

    Raises:
        CutoverRefused: another one is under way, or committed.
        CutoverEnded: this one was undone.
    """
    if cutover.id == request.id:
        if cutover.phase in ("idle", "undoing"):
            raise CutoverEnded(f"{_OVER}: {cutover.why}")
        return cutover
    if cutover.phase == "committed":
        raise CutoverRefused(
            f"this library has moved already, {cutover.since}, to {cutover.puller}",
            hint="To run Plex on the VM again, run 'plexodus-agent undo' there.",
        )
    if cutover.phase == "idle":
        return Cutover(
            "stopping", request.id, request.puller, since, serial=cutover.serial,
            max_seconds=request.max_seconds, history=cutover.history,
        )  # fmt: skip
    if cutover.phase == "undoing":
        raise CutoverRefused(
            f"Plex on the VM is still being started after the last cutover ({cutover.why})",
            hint="The agent retries until Plex runs, and waits for a stop_command that still runs."
            " 'plexodus-agent status' there says more.",
        )
    raise CutoverRefused(
        f"a cutover is under way, for {cutover.puller}",
        hint="It ends when its puller does. 'plexodus-agent status' has the details.",
    )


def held(cutover: Cutover, name: str, now: float, phases: tuple[CutoverPhase, ...]) -> Cutover:
    """The cutover, if it is called ``name``, in one of ``phases``, and its lease holds.

    Raises:
        CutoverEnded: it is not.
    """
    if cutover.id != name:
        raise CutoverEnded("the agent knows of no such cutover")
    if cutover.is_overdue:
        raise CutoverRefused(
            f"{_OVER}: {cutover.why}",
            hint="Find out what takes so long, or raise --max-downtime. The copied data is"
            " kept: run pull again.",
        )
    if cutover.phase not in phases:
        raise CutoverEnded(f"{_OVER}: {cutover.why or cutover.phase}")
    if cutover.phase != "committed" and not cutover.is_held(now):
        raise CutoverEnded(f"{_OVER}: the lease has expired")
    return cutover


def is_to_be_undone(cutover: Cutover, now: float) -> bool:
    """Return whether nobody continues it: its process was killed, or its puller is silent.

    The caller must hold the lock (:class:`agent.cutover.control.CutoverControl`).
    """
    if cutover.phase in ("stopping", "undoing"):
        return True
    return cutover.phase in ("stopped", "committing") and not cutover.is_held(now)


def ended(cutover: Cutover) -> Cutover:
    """Return the record of the time after an undo: nothing is under way."""
    return Cutover(
        "idle", cutover.id, cutover.puller, timestamp(), why=cutover.why, serial=cutover.serial,
        is_overdue=cutover.is_overdue, history=cutover.history,
    )  # fmt: skip


def why_undone(cutover: Cutover, now: float) -> str:
    """Return why a cutover is undone that nobody continues."""
    if cutover.why:
        return cutover.why
    if cutover.is_past_bound(now):
        return f"Plex was stopped for {cutover.max_seconds:.0f} s, the most that the pull allows"
    return "the lease has expired" if cutover.phase == "stopped" else "the agent was killed"


def in_phase(cutover: Cutover, phase: CutoverPhase, **changes: str) -> Cutover:
    """The same in another phase, from now on unless ``changes`` say since when."""
    changed = {"since": timestamp()} | changes
    return msgspec.structs.replace(cutover, phase=phase, **changed)


def about(cutover: Cutover, now: float, agent: str = "") -> CutoverStanding:
    """Return the public form of the record, for an agent of this version and settings."""
    seconds = max(0.0, cutover.until - now) if cutover.is_held(now) else 0.0
    return CutoverStanding(
        phase=cutover.phase,
        id=cutover.id,
        puller=cutover.puller,
        since=cutover.since,
        seconds=seconds,
        snapshot=cutover.snapshot,
        why=cutover.why,
        failure=cutover.history.failure,
        stops=cutover.history.stops,
        pause=cutover.history.pause(now),
        agent=agent,
    )
