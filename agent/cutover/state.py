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
from agent.plex.container import ContainerRecord
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
    """The puller's name for the cutover; that of the last one while idle."""
    puller: str = ""
    since: str = ""
    """Start of this phase, in RFC 3339, UTC."""
    was_running: bool = False
    """Whether Plex ran before the cutover, if that is known. An undo restores this state."""
    starting: list[str] = []
    """The command that starts Plex, because the settings may be unreadable by then."""
    run: str = ""
    """The service manager's id of the start of Plex that was stopped; another one is a change."""
    granted: float = 0.0
    """Last renewal of the lease, in seconds of CLOCK_BOOTTIME, which nobody can set."""
    until: float = 0.0
    snapshot: str = ""
    """Name of the committed snapshot."""
    why: str = ""
    """Reason for the end of the last cutover, while idle or undoing."""
    serial: int = 0
    """Grows with each step. The copy of the record with the higher number counts."""
    was_seen: bool = False
    """Whether Plex was visible before it was stopped, so that its restart must be visible, too."""
    stop_ordered: float | None = None
    """Time of the order to stop (CLOCK_BOOTTIME); None once its end was seen."""
    max_seconds: float = 0.0
    """Most seconds that Plex may stay stopped, even if the lease is renewed; 0 for no limit."""
    bound: float = 0.0
    """End of that time (CLOCK_BOOTTIME); 0 for never."""
    is_overdue: bool = False
    """Whether that time has passed, so that the puller must not retry at once."""
    history: StopHistory = StopHistory()
    """Earlier stops, for all pullers."""
    container: ContainerRecord | None = None
    """The container with Plex, and how it started before the move."""
    databases: str = ""
    """Folder of Plex's databases if Plex was not seen to use them: nobody may have one open."""

    def is_held(self, now: float) -> bool:
        """Return whether the lease holds. After a reboot, ``now`` is before ``granted``."""
        return self.phase in ("stopped", "committing") and self.granted <= now < self.until

    def is_past_bound(self, now: float) -> bool:
        """Return whether Plex has been stopped for as long as the pull allows."""
        return self.phase == "stopped" and 0.0 < self.bound <= now


def begun(cutover: Cutover, request: CutoverRequest, since: str) -> Cutover:
    """Return the record after ``POST /v1/cutover``; unchanged if the request is a repetition.

    Raises:
        CutoverRefused: If another cutover is under way, or committed.
        CutoverEnded: If this one was undone.
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
            hint="The agent retries until Plex runs, and as long as a stop may still end Plex."
            " 'plexodus-agent status' there says more.",
        )
    raise CutoverRefused(
        f"a cutover is under way, for {cutover.puller}",
        hint="It ends when its puller does. 'plexodus-agent status' has the details.",
    )


def held(cutover: Cutover, name: str, now: float, phases: tuple[CutoverPhase, ...]) -> Cutover:
    """Return the cutover, if it is called ``name``, in one of ``phases``, and its lease holds.

    Raises:
        CutoverRefused: If it was undone because Plex was stopped for too long.
        CutoverEnded: In all other cases.
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


def granted(cutover: Cutover, now: float, lease: float, **changes: str) -> Cutover:
    """Return the record with a lease of so many seconds, or until the bound if that is earlier."""
    until = min(now + lease, cutover.bound) if cutover.bound else now + lease
    stopped = in_phase(cutover, "stopped", **changes)
    return msgspec.structs.replace(stopped, granted=now, until=until)


def is_to_be_undone(cutover: Cutover, now: float) -> bool:
    """Return whether its process was killed, or its puller is silent. The caller has the lock."""
    if cutover.phase in ("stopping", "undoing"):
        return True
    return cutover.phase in ("stopped", "committing") and not cutover.is_held(now)


def ended(cutover: Cutover) -> Cutover:
    """Return the record after the end of an undo."""
    return Cutover(
        "idle", cutover.id, cutover.puller, timestamp(), why=cutover.why, serial=cutover.serial,
        is_overdue=cutover.is_overdue, history=cutover.history,
    )  # fmt: skip


def why_undone(cutover: Cutover, now: float) -> str:
    """Return the reason why a cutover is undone."""
    if cutover.why:
        return cutover.why
    if cutover.is_past_bound(now):
        return f"Plex was stopped for {cutover.max_seconds:.0f} s, the most that the pull allows"
    return "the lease has expired" if cutover.phase == "stopped" else "the agent was killed"


def in_phase(cutover: Cutover, phase: CutoverPhase, **changes: str) -> Cutover:
    """Return the record in another phase, since now unless ``changes`` has ``since``."""
    return msgspec.structs.replace(cutover, phase=phase, **{"since": timestamp()} | changes)


def about(cutover: Cutover, now: float, agent: str = "") -> CutoverStanding:
    """Return the public form of the record, for an agent of this version and settings."""
    return CutoverStanding(
        phase=cutover.phase,
        id=cutover.id,
        puller=cutover.puller,
        since=cutover.since,
        seconds=cutover.until - now if cutover.is_held(now) else 0.0,
        snapshot=cutover.snapshot,
        why=cutover.why,
        failure=cutover.history.failure,
        stops=cutover.history.stops,
        pause=cutover.history.pause(now),
        agent=agent,
    )
