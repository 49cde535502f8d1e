"""What the user wants of a pull."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from initpuller.agent_client.retry import IDLE_SECONDS, Retrier
from initpuller.plex.version_gate import VersionGate
from initpuller.pull.stop_terms import MAX_DOWNTIME
from shared.plex.sqlite_check import DatabaseCheck

if TYPE_CHECKING:
    from initpuller.volume.decision import OnExisting
    from initpuller.volume.ownership import Ownership
    from shared.wire.pairing import Pairing


@dataclass(frozen=True)
class PullOptions:
    """What the user wants, and how patient we are."""

    pairing: Pairing
    target: str
    ownership: Ownership
    exclude: list[str]
    jobs: int
    on_existing: OnExisting
    gate: VersionGate = field(default_factory=VersionGate)
    preferences: dict[str, str] = field(default_factory=dict)
    """Of Plex, to be set in the volume's copy."""
    cutover: bool = True
    """Have Plex stopped by the agent, when there is little left to bring."""
    downtime: float = 30.0
    """Seconds: a live pass that takes less is the last, since Plex would be down for so long."""
    max_downtime: float = MAX_DOWNTIME
    """Seconds that Plex may be stopped for this pull; then it is started again."""
    retry_failed: bool = False
    """Have Plex stopped although an earlier failure would be met again."""
    is_vouched: bool = False
    """The user says that Plex is stopped, or that there is none."""
    rehearse: bool = False
    """Bring and publish a copy while Plex runs, and leave it running."""
    until_ready: bool = False
    """Move what can be moved while Plex runs, and publish nothing."""
    database_check: DatabaseCheck = DatabaseCheck.FULL
    """How much of the source's databases is checked."""
    existing_check: DatabaseCheck = DatabaseCheck.QUICK
    """How much is checked of the databases of a library that is on the volume and not ours."""
    retrier: Retrier = field(default_factory=Retrier)
    idle: float = IDLE_SECONDS
    """Seconds without a byte after which the agent counts as stalled."""
