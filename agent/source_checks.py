"""Registry of the checks of the source. None of them writes anything.

ARCHITECTURE.md, "Add a check", says which files a new check needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from agent.checks import content, databases, placement, plex_service, preferences
from agent.checks.source_facts import SourceFacts
from shared.checks import EVERY_RUN, PREFLIGHT_ONLY, CheckId, Outcome, When
from shared.plex.sqlite_check import DatabaseCheck
from shared.wire.protocol import LibraryReport, ServerReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.settings import Settings
    from agent.source.library import LibrarySource
    from shared.checks import Check


class Subject(Enum):
    """Libraries that a check applies to."""

    ANY_FOLDER = auto()
    PLEX_LIBRARY = auto()


@dataclass(frozen=True)
class SourceCheck:
    """One check of the source."""

    id: CheckId
    run: Callable[[SourceFacts], Check | None]
    """Returns None if the result of another check says everything."""
    when: frozenset[When] = EVERY_RUN
    subject: Subject = Subject.PLEX_LIBRARY


def _check_library(facts: SourceFacts) -> Check | None:
    """Check the library's place, unless a symlink hides Plex's folder: that has its own check."""
    is_hidden = not facts.is_plex and facts.links.outcome is not Outcome.PASS
    return None if is_hidden else placement.check_library(facts.path)


def _check_folders(facts: SourceFacts) -> Check | None:
    """Check Plex's folders. A folder without any of them is not Plex's."""
    is_other = not facts.is_plex and facts.links.outcome is Outcome.PASS
    return None if is_other else facts.links


SOURCE_CHECKS = (
    SourceCheck(CheckId.LIBRARY, _check_library, subject=Subject.ANY_FOLDER),
    SourceCheck(CheckId.PLEX_FOLDERS, _check_folders, subject=Subject.ANY_FOLDER),
    SourceCheck(CheckId.METADATA_FOLDER, lambda facts: placement.check_metadata(facts.server)),
    SourceCheck(CheckId.MEDIA_FOLDER, lambda facts: placement.check_media(facts.server)),
    SourceCheck(CheckId.SOURCE_VERSION, lambda facts: plex_service.check_version(facts.version)),
    SourceCheck(CheckId.PLEX_RUNNING, lambda _facts: plex_service.check_running()),
    SourceCheck(CheckId.CUTOVER, lambda facts: plex_service.check_cutover(facts.settings)),
    SourceCheck(
        CheckId.LIBRARY_DATABASE,
        lambda facts: databases.check_library_database(facts.server, facts.depth),
    ),
    SourceCheck(
        CheckId.BLOBS_DATABASE,
        lambda facts: databases.check_blobs_database(facts.server, facts.depth),
    ),
    SourceCheck(
        CheckId.PREFERENCES, lambda facts: preferences.check_preferences(facts.preferences)
    ),
    SourceCheck(
        CheckId.OLD_MACHINE, lambda facts: preferences.check_old_machine(facts.preferences)
    ),
    SourceCheck(
        CheckId.AUTOMATIC_TRASH,
        lambda facts: preferences.check_automatic_trash(facts.preferences),
    ),
    SourceCheck(
        CheckId.CONTENT,
        lambda facts: content.check_content(facts.tree),
        PREFLIGHT_ONLY,
        Subject.ANY_FOLDER,
    ),
    SourceCheck(
        CheckId.READABLE,
        lambda facts: content.check_readable(facts.tree),
        PREFLIGHT_ONLY,
        Subject.ANY_FOLDER,
    ),
    SourceCheck(
        CheckId.SYMLINKS,
        lambda facts: content.check_symlinks(facts.tree),
        PREFLIGHT_ONLY,
        Subject.ANY_FOLDER,
    ),
    SourceCheck(
        CheckId.REGENERABLE, lambda facts: content.check_regenerable(facts.tree), PREFLIGHT_ONLY
    ),
)
"""All checks, in the order in which users see their results."""


def run_checks(facts: SourceFacts, when: When) -> list[Check]:
    """Return the results of all checks that apply to this library and this command."""
    results = [
        check.run(facts)
        for check in SOURCE_CHECKS
        if when in check.when and (facts.is_plex or check.subject is Subject.ANY_FOLDER)
    ]
    return [result for result in results if result is not None]


def check_for_preflight(
    source: LibrarySource, settings: Settings, depth: DatabaseCheck = DatabaseCheck.FULL
) -> LibraryReport:
    """Return the results of all checks, and the size of the library. Walks the whole tree.

    Args:
        source: the library.
        settings: the agent's settings.
        depth: how much of Plex's databases to check.
    """
    facts = SourceFacts(source, settings, depth)
    about = _report(facts, When.PREFLIGHT)
    return LibraryReport(
        library=about.library,
        plex_version=about.plex_version,
        media=about.media,
        checks=about.checks,
        entries=facts.tree.entries,
        content_bytes=facts.tree.content_bytes,
        read_seconds=facts.tree.read_seconds,
    )


def check_for_pull(
    source: LibrarySource, settings: Settings, depth: DatabaseCheck = DatabaseCheck.FULL
) -> ServerReport:
    """Return the results of the checks that a pull makes beside its scan.

    Args:
        source: the library.
        settings: the agent's settings.
        depth: how much of Plex's databases to check.
    """
    return _report(SourceFacts(source, settings, depth), When.PULL)


def _report(facts: SourceFacts, when: When) -> ServerReport:
    version = facts.version if facts.is_plex else None
    return ServerReport(
        library=facts.source.about,
        plex_version=None if version is None else str(version),
        media=databases.media_folders(facts.server) if facts.is_plex else [],
        checks=run_checks(facts, when),
    )
