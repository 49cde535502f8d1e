"""The state of the move, on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from agent.host.migration_log import MigrationLog
from agent.host.systemd import service_status
from agent.plex.services import plex_service
from shared.checks import duration
from shared.errors import CutoverRefused
from shared.wire.protocol import CutoverPhase, CutoverStanding

if TYPE_CHECKING:
    from agent.cutover.control import CutoverControl
    from agent.settings import Settings

_LAST = 5
"""Number of lines of the migration log to show."""
MEANING: dict[CutoverPhase, str] = {
    "idle": "no cutover is under way",
    "stopping": "Plex is being stopped",
    "stopped": "Plex is stopped while the remaining changes are transferred",
    "committing": "everything is transferred, and the fence is being put up",
    "committed": "the library has moved, and Plex stays stopped here",
    "undoing": "Plex is being started again",
}
"""Each phase in words."""
_UNDO: dict[CutoverPhase, str] = {
    "idle": "nothing: there is nothing to undo",
    "committed": "lift the fence and start Plex here; what it did in the cluster stays there",
}
_UNDO_EARLIER = "start Plex here again; the puller notices and resumes with the data it has"


class Status(msgspec.Struct, frozen=True):
    """The state of the move on this VM."""

    cutover: CutoverStanding
    meaning: str
    plex: str
    agent: str
    """What the running service last told systemd; empty without one."""
    undo: str
    log: list[str]
    """The last lines of the migration log."""


def read_status(settings: Settings, control: CutoverControl) -> Status:
    """Return the state of the move. Change nothing.

    Raises:
        StorageError: If the record of the cutover cannot be read.
        OSError: If the migration log cannot be read.
    """
    standing = control.standing()
    return Status(
        cutover=standing,
        meaning=MEANING[standing.phase],
        plex=plex_on_vm(settings),
        agent=service_status(),
        undo=what_undo_would_do(standing.phase),
        log=_last_lines(settings.state),
    )


def status_screen(status: Status) -> str:
    """Return the status as text for people."""
    cutover = status.cutover
    lease = f"{duration(cutover.seconds)} left, unless it is renewed" if cutover.seconds else ""
    pairs = {
        "cutover": f"{cutover.phase}: {status.meaning}",
        "since": cutover.since,
        "puller": cutover.puller,
        "lease": lease,
        "snapshot": cutover.snapshot,
        "ended": cutover.why,
        "Plex": status.plex,
        "agent": status.agent,
        "undo": f"would {status.undo}" if cutover.phase != "idle" else status.undo,
    }
    lines = [f"{name:<9} {value}" for name, value in pairs.items() if value]
    return "\n".join([*lines, "", *status.log] if status.log else lines)


def what_undo_would_do(phase: CutoverPhase) -> str:
    """Return what an undo would do in this phase, in words."""
    return _UNDO.get(phase, _UNDO_EARLIER)


def plex_on_vm(settings: Settings) -> str:
    """Return the state of Plex on the VM, in words."""
    service = plex_service(settings)
    try:
        if service.is_running():
            return "runs"
        left = service.left()
    except CutoverRefused as error:
        return f"state unknown: {error.what}"
    return f"is stopped, but: {'; '.join(left)}" if left else "is stopped"


def _last_lines(state: str) -> list[str]:
    log, offset, lines = MigrationLog(state), 0, list[str]()
    while True:
        piece, offset = log.read(offset, as_json=False)
        if not piece:
            return lines
        lines = [*lines, *piece.decode(errors="replace").splitlines()][-_LAST:]
