"""The preflight: all checks of the source and of the target, before a move."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from initpuller.agent_client.retry import IDLE_SECONDS, Retrier
from initpuller.pull.checks.target_checks import Target, TargetFacts, completed, run_checks
from shared.checks import Check, Outcome, When
from shared.tree.member_path import check_root_name

if TYPE_CHECKING:
    from shared.plex.sqlite_check import DatabaseCheck
    from shared.wire.pairing import Pairing


class PreflightReport(msgspec.Struct, frozen=True):
    """Results of the checks of both sides."""

    source: list[Check]
    target: list[Check]

    @property
    def failed(self) -> list[str]:
        """The names of the failed checks."""
        both = [*self.source, *self.target]
        return [check.name for check in both if check.outcome is Outcome.FAILURE]


async def check_both_sides(
    pairing: Pairing, target: Target, database_check: DatabaseCheck
) -> PreflightReport:
    """Run all checks of both sides.

    Args:
        pairing: with the agent to ask.
        target: the volume and the pod to check.
        database_check: how much of the source's databases the agent checks.

    Raises:
        AgentUnreachable, AuthenticationError, ProtocolViolation: the agent cannot be asked.
        IllegalPath: its library has a name that cannot be moved.
        OSError: the volume cannot be read.
    """
    from initpuller.agent_client.client import AgentClient  # noqa: PLC0415 - takes long to import

    retrier = Retrier()
    async with AgentClient(pairing, IDLE_SECONDS) as client:
        report = await retrier.run("the preflight", lambda: client.library(database_check))
        rate = await retrier.run("the probe", client.probe)
    check_root_name(os.fsencode(report.library.name))
    facts = TargetFacts(replace(target, gate=await completed(target.gate)), report, rate)
    return PreflightReport(
        report.checks, await asyncio.to_thread(run_checks, facts, When.PREFLIGHT)
    )
