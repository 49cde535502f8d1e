"""The command ``plexodus-puller preflight``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from initpuller.commands.options import (
    AS_JSON,
    DATABASE_CHECK,
    TARGET,
    database_checks,
    version_gated,
)
from initpuller.commands.pairing import chosen_pairing, paired
from shared.program.standard_streams import show

if TYPE_CHECKING:
    from initpuller.pull.checks.target_checks import Target
    from shared.checks import Check
    from shared.plex.sqlite_check import DatabaseCheck
    from shared.wire.pairing import Pairing


@click.command()
@paired
@TARGET
@version_gated
@DATABASE_CHECK
@AS_JSON
def preflight(
    *,
    pairing_file: str | None,
    client_certificate: str,
    client_key: str,
    target: str,
    plex_version: str,
    version_policy: str,
    database_check: str | None,
    as_json: bool,
) -> None:
    """Check both sides before a move. Nothing is stopped, and nothing stays on the volume.

    A temporary folder in .plexodus shows what the volume can do. Exits 12 if you must fix something
    first.

    \b
    Example:
      plexodus-puller preflight --pairing-file pairing --target /config \\
          --plex-version 1.40.1.8227-c0dd5a73e
    """
    import asyncio

    import msgspec

    from initpuller.plex.version_gate import VersionGate, VersionPolicy
    from initpuller.pull.checks.target_checks import Target
    from initpuller.volume.ownership import choose_ownership, plex_owner
    from initpuller.volume.records.target import open_layout
    from shared.checks import Outcome, page
    from shared.errors import ConfigurationError, PreflightRefused

    source_check, existing_check = database_checks(database_check)
    pairing = chosen_pairing(pairing_file, client_certificate, client_key)
    gate = VersionGate(plex_version, VersionPolicy(version_policy))
    ownership = choose_ownership(plex_owner(os.environ))
    try:
        volume = Target(open_layout(target), gate, ownership, existing_check)
        source, here = asyncio.run(_check_both_sides(pairing, volume, source_check))
    except OSError as error:
        raise ConfigurationError(
            f"the target cannot be read ({error.strerror})",
            path=target,
            hint="Mount the volume there, and make it readable for this user.",
        ) from error
    if as_json:
        show(msgspec.json.encode({"source": source, "target": here}).decode())
    else:
        show(f"On the VM\n\n{page(source)}\n\nHere\n\n{page(here)}")
    failed = [each.name for each in (*source, *here) if each.outcome is Outcome.FAILURE]
    if failed:
        raise PreflightRefused(f"failed checks: {', '.join(failed)}", path=target)


async def _check_both_sides(
    pairing: Pairing, target: Target, source_check: DatabaseCheck
) -> tuple[list[Check], list[Check]]:
    """Return the results of all checks of the source, and of the target."""
    from dataclasses import replace

    from initpuller.agent_client.client import AgentClient
    from initpuller.agent_client.retry import IDLE_SECONDS, Retrier
    from initpuller.cancellation import in_thread
    from initpuller.pull.checks.target_checks import TargetFacts, completed, run_checks
    from shared.checks import When
    from shared.tree.member_path import check_root_name

    retrier = Retrier()
    async with AgentClient(pairing, IDLE_SECONDS) as client:
        report = await retrier.run("the preflight", lambda: client.library(source_check))
        rate = await retrier.run("the probe", client.probe)
        check_root_name(os.fsencode(report.library.name))
        facts = TargetFacts(replace(target, gate=await completed(target.gate)), report, rate)
        here = await in_thread(run_checks, facts, When.PREFLIGHT)
        await client.report_checks(here, are_all=True)
    return report.checks, here
