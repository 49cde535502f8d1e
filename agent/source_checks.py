"""Registry of the checks of the source. None of them writes anything.

ARCHITECTURE.md, "Add a check", says which files a new check needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from agent.checks import content, databases, placement, plex_service, preferences
from agent.checks.source_facts import SourceFacts
from shared.checks import EVERY_RUN, PREFLIGHT_ONLY, CheckId, Outcome, When
from shared.errors import PreflightRefused
from shared.plex.sqlite_check import DatabaseCheck
from shared.wire.protocol import LibraryReport, ServerReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.settings import Settings
    from agent.source.library import LibrarySource
    from shared.checks import Check


@dataclass(frozen=True)
class SourceCheck:
    """One check of the source."""

    id: CheckId
    run: Callable[[SourceFacts], Check | None]
    """Returns None if the result of another check says everything."""
    when: frozenset[When] = EVERY_RUN
    is_general: bool = False
    """Whether it applies to any folder, not only to a Plex library."""


_Any = partial(SourceCheck, is_general=True)

SOURCE_CHECKS = (
    _Any(CheckId.LIBRARY, placement.check_top),
    _Any(CheckId.PLEX_FOLDERS, placement.check_folders),
    SourceCheck(
        CheckId.METADATA_FOLDER,
        lambda facts: placement.check_artwork(CheckId.METADATA_FOLDER, facts.server),
    ),
    SourceCheck(
        CheckId.MEDIA_FOLDER,
        lambda facts: placement.check_artwork(CheckId.MEDIA_FOLDER, facts.server),
    ),
    SourceCheck(CheckId.SOURCE_VERSION, plex_service.check_version),
    SourceCheck(CheckId.PLEX_RUNNING, plex_service.check_running),
    SourceCheck(CheckId.CUTOVER, plex_service.check_cutover_before_move, PREFLIGHT_ONLY),
    SourceCheck(CheckId.CUTOVER, plex_service.check_cutover, frozenset({When.PULL})),
    SourceCheck(CheckId.LIBRARY_DATABASE, databases.check_library_database),
    SourceCheck(CheckId.BLOBS_DATABASE, databases.check_blobs_database),
    SourceCheck(CheckId.PREFERENCES, preferences.check_preferences),
    SourceCheck(CheckId.OLD_MACHINE, preferences.check_old_machine),
    SourceCheck(CheckId.AUTOMATIC_TRASH, preferences.check_automatic_trash),
    _Any(CheckId.CONTENT, content.check_content, PREFLIGHT_ONLY),
    _Any(CheckId.READABLE, content.check_readable, PREFLIGHT_ONLY),
    _Any(CheckId.SYMLINKS, content.check_symlinks, PREFLIGHT_ONLY),
    SourceCheck(CheckId.REGENERABLE, content.check_regenerable, PREFLIGHT_ONLY),
)
"""All checks, in the order in which users see their results."""


def check_for_preflight(
    source: LibrarySource, settings: Settings, depth: DatabaseCheck = DatabaseCheck.FULL
) -> LibraryReport:
    """Return the results of all checks, and the size of the library. Walks the whole tree."""
    return preflight_report(SourceFacts(source, settings, depth))


def preflight_report(facts: SourceFacts) -> LibraryReport:
    """Return what :func:`check_for_preflight` returns, and leave the ``facts`` to the caller."""
    return LibraryReport(
        **msgspec.structs.asdict(_report(facts, When.PREFLIGHT)),
        entries=facts.tree.entries,
        content_bytes=facts.tree.content_bytes,
        read_seconds=facts.tree.read_seconds,
    )


def refuse_failures(report: LibraryReport, hint: str = "") -> None:
    """Do nothing if no check of ``report`` has failed.

    Raises:
        PreflightRefused: It names those that have, and says ``hint``.
    """
    failed = [check.name for check in report.checks if check.outcome is Outcome.FAILURE]
    if failed:
        what = f"failed checks: {', '.join(failed)}"
        raise PreflightRefused(what, path=report.library.path, hint=hint)


def check_for_pull(
    source: LibrarySource, settings: Settings, depth: DatabaseCheck = DatabaseCheck.FULL
) -> ServerReport:
    """Return the results of the checks that a pull makes beside its scan."""
    return _report(SourceFacts(source, settings, depth), When.PULL)


def _report(facts: SourceFacts, when: When) -> ServerReport:
    version = facts.version if facts.is_plex else None
    results = [
        check.run(facts)
        for check in SOURCE_CHECKS
        if when in check.when and (facts.is_plex or check.is_general)
    ]
    return ServerReport(
        library=facts.source.about,
        plex_version=None if version is None else str(version),
        media=databases.media_folders(facts.server) if facts.is_plex else [],
        checks=[result for result in results if result is not None],
    )
