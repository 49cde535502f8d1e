"""Run the checks of a pull, and decide which of their results end it.

The agent's check of Plex's databases takes long, so it has a request of its own, which runs beside
the transfer. All other checks come first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from initpuller.cancellation import in_thread
from initpuller.pull.checks.target_checks import Target, TargetFacts, completed, run_checks
from initpuller.pull.options import Mode, PullOptions
from shared.checks import DATABASE_CHECKS, Check, CheckId, Outcome, When
from shared.errors import CutoverRefused, PreflightRefused
from shared.plex.library import server_folder
from shared.plex.sqlite_check import DatabaseCheck
from shared.tree.excludes import matcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initpuller.agent_client.client import AgentClient
    from initpuller.volume.records.layout import Layout

_log = structlog.get_logger("puller")

_ABOUT_FOLDERS = {CheckId.METADATA_FOLDER: "Metadata", CheckId.MEDIA_FOLDER: "Media"}
"""Checks about one folder in Plex's own folder. They do not matter if the pull excludes it."""

_FROM_FAILURE = frozenset({Outcome.FAILURE})
_FROM_WARNING = frozenset({Outcome.WARNING, Outcome.FAILURE})


@dataclass(frozen=True)
class CheckedSource:
    """The findings of a pull's checks on the VM."""

    plex_version: str | None
    """Version of the source's Plex; None if it is not known."""
    is_plex: bool
    """The library is Plex's own."""


async def check_for_pull(
    client: AgentClient, options: PullOptions, layout: Layout
) -> CheckedSource:
    """Run all checks but that of databases, log warnings, and refuse if a result is fatal.

    Of the databases, only their presence is checked here; see :func:`check_databases`.

    Raises:
        CutoverRefused: the only fatal result is that Plex cannot be stopped.
        PreflightRefused: another result is fatal.
        PlexodusError: the agent cannot be asked.
    """
    report = await options.retrier.run("the preflight", lambda: client.server(DatabaseCheck.SKIP))
    gate = await completed(options.gate)
    target = Target(layout, gate, options.ownership, options.existing_check)
    facts = TargetFacts(target, report)
    on_vm = [
        check
        for check in report.checks
        if check.id not in DATABASE_CHECKS or check.outcome is Outcome.FAILURE
    ]
    here = await in_thread(run_checks, facts, When.PULL)
    await client.report_checks(here)
    results = [*on_vm, *here]
    _log_warnings(results)
    excluded = excluded_checks(options.exclude, facts.name)
    for check in results:
        if check.id in excluded and check.outcome is Outcome.FAILURE:
            _log.warning("folder excluded, check ignored", check=check.name, found=check.found)
    _refuse([check for check in results if check.id not in excluded], options)
    outcomes = {check.id: check.outcome for check in report.checks}
    return CheckedSource(
        plex_version=report.plex_version,
        is_plex=outcomes.get(CheckId.LIBRARY) is Outcome.PASS,
    )


async def check_databases(client: AgentClient, options: PullOptions) -> dict[str, str]:
    """Have the agent check the source's databases; return each check's finding, by its name.

    The databases on the volume need no check of their own: they have the digests of the source's.

    Raises:
        PreflightRefused: a database is damaged.
        PlexodusError: the agent cannot be asked.
    """
    report = await options.retrier.run(
        "the check of the databases", lambda: client.server(options.database_check)
    )
    results = [check for check in report.checks if check.id in DATABASE_CHECKS]
    _log_warnings(results)
    _refuse(results, options)
    return {check.name: check.found for check in results}


def fatal_outcomes(check: CheckId, options: PullOptions) -> frozenset[Outcome]:
    """Return the outcomes of a check that end a pull with these options.

    A failure is fatal and a warning is not, except for two checks. :data:`CheckId.CUTOVER` matters
    to a pull that stops Plex. :data:`CheckId.LIBRARY` matters to a pull that Plex will start on.
    """
    if check is CheckId.CUTOVER:
        stops_plex = options.mode is Mode.MOVE
        return _FROM_WARNING if stops_plex and not options.retry_failed else _FROM_FAILURE
    if check is CheckId.LIBRARY:
        if options.mode.is_for_cutover:
            return _FROM_WARNING
        return _FROM_FAILURE if options.mode is Mode.REHEARSE else frozenset()
    return _FROM_FAILURE


def excluded_checks(exclude: Sequence[str], name: str) -> frozenset[CheckId]:
    """Return the checks about folders that the pull of the library ``name`` leaves out."""
    is_excluded = matcher(tuple(exclude))
    if is_excluded is None:
        return frozenset()
    server = server_folder(name) or name
    return frozenset(
        check
        for check, folder in _ABOUT_FOLDERS.items()
        if is_excluded(os.fsencode(os.path.join(server, folder)), os.fsencode(folder))
    )


def _log_warnings(results: Sequence[Check]) -> None:
    for check in results:
        if check.outcome is Outcome.WARNING:
            _log.warning(check.found, check=check.name, hint=check.advice)


def _refuse(results: Sequence[Check], options: PullOptions) -> None:
    """Raise one error for all fatal results: CutoverRefused if only the stop of Plex is refused."""
    fatal = [check for check in results if check.outcome in fatal_outcomes(check.id, options)]
    if not fatal:
        return
    is_only_cutover = all(check.id is CheckId.CUTOVER for check in fatal)
    refused = CutoverRefused if is_only_cutover else PreflightRefused
    raise refused(
        "; ".join(f"{check.name}: {check.found}" for check in fatal),
        hint=" ".join(check.advice for check in fatal),
    )
