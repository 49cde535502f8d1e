"""The context that every stage of one pull works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from initpuller.agent_client.client import AgentClient
    from initpuller.pull.options import PullOptions
    from initpuller.report.progress import PullProgress
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.workers.pool import Worker


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
