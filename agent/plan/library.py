"""The facts of the library on the VM that its plan depends on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.checks.source_facts import SourceFacts
from agent.source_checks import preflight_report, refuse_failures
from shared.errors import PreflightRefused
from shared.plex.sqlite_check import DatabaseCheck

if TYPE_CHECKING:
    from agent.settings import Settings
    from agent.source.library import LibrarySource
    from shared.wire.protocol import MediaFolder

_IMAGES_OWNER = 1000, 1000
"""The owner that Plex's image gives to its files, unless the environment names another."""


@dataclass(frozen=True)
class PlannedLibrary:
    """The facts of one library that its plan depends on."""

    version: str
    """Version of Plex, the tag of its image."""
    content_bytes: int
    entries: int
    owner: tuple[int, int]
    """User and group that Plex in the pod runs as, and that own all files there."""
    regenerable: dict[str, int]
    """Bytes of what Plex creates again, by path."""
    media: list[MediaFolder]


def read_library(source: LibrarySource, settings: Settings) -> PlannedLibrary:
    """Return the facts of a library. Read-only, but it walks the tree and checks the databases.

    Raises:
        PreflightRefused: If a check fails, or the version of Plex is not known.
    """
    facts = SourceFacts(source, settings, DatabaseCheck.FULL)
    report = preflight_report(facts)
    refuse_failures(report, "'plexodus-agent preflight' says what to do.")
    if report.plex_version is None:
        raise PreflightRefused(
            "the version of Plex is not known, and so not the tag of its image",
            path=source.about.path,
            hint="Start Plex, then run this again.",
        )
    about = os.stat(facts.server)
    return PlannedLibrary(
        version=report.plex_version,
        content_bytes=report.content_bytes,
        entries=report.entries,
        # Plex does not run as root in its image.
        owner=(about.st_uid, about.st_gid) if about.st_uid else _IMAGES_OWNER,
        regenerable=facts.tree.regenerable,
        media=report.media,
    )
