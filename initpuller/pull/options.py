"""The options of a pull, and the context that every stage of one run works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from initpuller.agent_client.retry import IDLE_SECONDS, Retrier
from initpuller.plex.version_gate import VersionGate
from initpuller.pull.stop_terms import MAX_DOWNTIME
from shared.plex.sqlite_check import DatabaseCheck

if TYPE_CHECKING:
    from initpuller.agent_client.client import AgentClient
    from initpuller.report.progress import PullProgress
    from initpuller.volume.decision import OnExisting
    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.workers.threads import Worker
    from shared.wire.pairing import Pairing


class Mode(Enum):
    """The mode of a pull."""

    MOVE = "have the agent stop Plex, and publish"
    MOVE_STOPPED = "publish, because Plex is stopped already, or the library is not Plex's"
    REHEARSE = "publish a copy to try, and leave Plex running"
    PRESEED = "transfer what a later MOVE then finds on the volume"
    PRESEED_STOPPED = "transfer what a later MOVE_STOPPED then finds on the volume"

    @property
    def is_for_cutover(self) -> bool:
        """Whether the agent stops Plex for this library, in this pull or in a later one.

        Only a library that Plex finds on the volume is worth that.
        """
        return self in (Mode.MOVE, Mode.PRESEED)

    @property
    def is_preseed(self) -> bool:
        """Whether nothing is published."""
        return self in (Mode.PRESEED, Mode.PRESEED_STOPPED)

    @property
    def title(self) -> str:
        """Return the name of the mode for people."""
        if self is Mode.REHEARSE:
            return "Rehearsal"
        return f"Pull until {'ready' if self.is_preseed else 'done'}"


def choose_mode(*, rehearse: bool, until_ready: bool, no_cutover: bool) -> Mode:
    """Return the mode that the options of the command ask for.

    ``--no-cutover`` beside ``--rehearse`` changes nothing.
    """
    if rehearse:
        return Mode.REHEARSE
    if until_ready:
        return Mode.PRESEED_STOPPED if no_cutover else Mode.PRESEED
    return Mode.MOVE_STOPPED if no_cutover else Mode.MOVE


@dataclass(frozen=True)
class PullOptions:
    """The options of one pull, with the limits of its retries."""

    pairing: Pairing
    target: str
    ownership: Ownership
    exclude: list[str]
    jobs: int
    on_existing: OnExisting
    gate: VersionGate = field(default_factory=VersionGate)
    preferences: dict[str, str] = field(default_factory=dict)
    """Plex's preferences to set in the volume's copy."""
    mode: Mode = Mode.MOVE
    downtime: float = 30.0
    """Seconds: a live pass that takes less is the last, as Plex would be down for about as long."""
    max_downtime: float = MAX_DOWNTIME
    """Seconds that Plex may be stopped for this pull; then it is started again."""
    retry_failed: bool = False
    """Stop Plex although an earlier failure would be met again."""
    database_check: DatabaseCheck = DatabaseCheck.FULL
    """How much of the source's databases is checked."""
    existing_check: DatabaseCheck = DatabaseCheck.QUICK
    """How much is checked of the databases of a library that is on the volume and not ours."""
    retrier: Retrier = field(default_factory=Retrier)
    idle: float = IDLE_SECONDS
    """Seconds without a byte after which the agent counts as stalled."""


@dataclass(frozen=True)
class PullContext:
    """One run of ``pull``: the volume, what the user wants, the agent, and helpers."""

    record: PullRecord
    """Of the volume, whose lock this process holds."""
    options: PullOptions
    client: AgentClient
    workers: list[Worker]
    """Processes that fetch and unpack frames."""
    progress: PullProgress

    @property
    def layout(self) -> Layout:
        """The names on the volume."""
        return self.record.layout
