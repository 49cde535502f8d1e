"""Run the checks of a pull, and decide which of their results end it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from initpuller.pull.target_checks import check_filesystem, completed
from initpuller.volume.filesystem import network_filesystem
from shared.checks import CUTOVER_CHECK, LIBRARY_CHECK, Outcome
from shared.errors import CutoverRefused, PreflightRefused
from shared.plex.library import ARTWORK_FOLDERS, library_name, server_folder
from shared.tree.excludes import matcher

if TYPE_CHECKING:
    from initpuller.agent_client.client import AgentClient
    from initpuller.pull.options import PullOptions
    from initpuller.volume.records.layout import Layout
    from shared.checks import Check

_log = structlog.get_logger("puller")


@dataclass(frozen=True)
class CheckedSource:
    """What the checks of a pull found on the VM."""

    plex_version: str | None
    """Version of the source's Plex; None if it is not known."""
    is_plex: bool
    """The library is Plex's own."""
    databases: dict[str, str]
    """Result of the agent's check of each database, by the check's name."""


async def check_for_pull(
    client: AgentClient, options: PullOptions, layout: Layout
) -> CheckedSource:
    """Run the checks of a pull, log their warnings, and refuse the pull if a failure is fatal.

    Raises:
        CutoverRefused: the only fatal result is that Plex cannot be stopped.
        PreflightRefused: another result is fatal.
        PlexodusError: the agent cannot be asked.
    """
    report = await options.retrier.run(
        "the preflight", lambda: client.server(options.database_check)
    )
    kind = await asyncio.to_thread(network_filesystem, layout.target)
    gate = await completed(options.gate)
    checks = [*report.checks, gate.check(report.plex_version), check_filesystem(kind)]
    for check in checks:
        if check.outcome is Outcome.WARNING:
            _log.warning(check.found, check=check.name, hint=check.advice)
    name = library_name(report.library.name, placed=layout.places_server)
    failed = [check for check in checks if _is_fatal(check, options, name)]
    if failed:
        is_library_fit = all(check.name == CUTOVER_CHECK for check in failed)
        refused = CutoverRefused if is_library_fit else PreflightRefused
        raise refused(
            "; ".join(f"{check.name}: {check.found}" for check in failed),
            hint=" ".join(check.advice for check in failed),
        )
    return CheckedSource(
        plex_version=report.plex_version,
        is_plex=any(
            check.name == LIBRARY_CHECK and check.outcome is Outcome.PASS for check in report.checks
        ),
        databases={
            check.name: check.found for check in report.checks if check.name.endswith("database")
        },
    )


def _is_fatal(check: Check, options: PullOptions, name: str) -> bool:
    """Return whether the result of a check ends a pull with these options.

    Args:
        check: the result.
        options: what the user asked for.
        name: the library's name on the volume.
    """
    is_failure = check.outcome is Outcome.FAILURE
    if check.outcome is Outcome.PASS:
        return False
    if check.name == CUTOVER_CHECK:
        is_to_be_stopped = options.cutover and not options.until_ready
        return is_failure or (is_to_be_stopped and not options.retry_failed)
    if check.name == LIBRARY_CHECK:
        return options.cutover or (options.rehearse and is_failure)
    if check.name in ARTWORK_FOLDERS:
        path = os.path.join(server_folder(name) or name, check.name)
        is_excluded = matcher(tuple(options.exclude))
        if is_excluded and is_excluded(os.fsencode(path), os.fsencode(check.name)):
            _log.warning("left out, as told", check=check.name, found=check.found)
            return False
    return is_failure
