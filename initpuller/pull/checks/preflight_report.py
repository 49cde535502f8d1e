"""The preflight: all checks of the source and of the target, before a move."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from initpuller.agent_client.retry import IDLE_SECONDS, Retrier
from initpuller.pull.checks.target_checks import Target, TargetFacts, completed, run_checks
from initpuller.volume.records.target import open_layout
from shared.checks import Check, Outcome, When
from shared.plex.sqlite_check import DatabaseCheck
from shared.tree.member_path import check_root_name

if TYPE_CHECKING:
    from initpuller.plex.version_gate import VersionGate
    from initpuller.volume.ownership import Ownership
    from shared.wire.pairing import Pairing
    from shared.wire.protocol import LibraryReport


@dataclass(frozen=True)
class PreflightOptions:
    """The agent to ask, and the pod and the volume to check."""

    pairing: Pairing
    target: str
    gate: VersionGate
    ownership: Ownership
    database_check: DatabaseCheck = DatabaseCheck.FULL
    """How much of the source's databases the agent checks."""
    existing_check: DatabaseCheck = DatabaseCheck.QUICK
    """How much to check of the databases of a library that is on the volume already."""
    retrier: Retrier = field(default_factory=Retrier)
    idle: float = IDLE_SECONDS
    """Seconds without a byte after which the agent counts as stalled."""


class PreflightReport(msgspec.Struct, frozen=True):
    """Results of the checks of both sides."""

    source: list[Check]
    target: list[Check]

    @property
    def failed(self) -> list[str]:
        """The names of the failed checks."""
        both = [*self.source, *self.target]
        return [check.name for check in both if check.outcome is Outcome.FAILURE]


def check_both_sides(options: PreflightOptions) -> PreflightReport:
    """Run all checks of both sides.

    Raises:
        AgentUnreachable, AuthenticationError, ProtocolViolation: the agent cannot be asked.
        IllegalPath: its library has a name that cannot be moved.
        OSError: the volume cannot be read.
    """
    report, rate, gate = asyncio.run(_ask(options))
    check_root_name(os.fsencode(report.library.name))
    layout = open_layout(options.target)
    target = Target(layout, gate, options.ownership, options.existing_check)
    facts = TargetFacts(target, report, rate)
    return PreflightReport(source=report.checks, target=run_checks(facts, When.PREFLIGHT))


async def _ask(options: PreflightOptions) -> tuple[LibraryReport, float, VersionGate]:
    """Return the agent's report, the bytes per second from it, and the pod's version of Plex."""
    from initpuller.agent_client.client import AgentClient  # noqa: PLC0415 - takes long to import

    async with AgentClient(options.pairing, options.idle) as client:
        report = await options.retrier.run(
            "the preflight", lambda: client.library(options.database_check)
        )
        rate = await options.retrier.run("the probe", client.probe)
    return report, rate, await completed(options.gate)
