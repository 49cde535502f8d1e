"""The facts of the library on the VM that its plan depends on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.checks.source_facts import SourceFacts
from agent.plan.owner import choose_owner
from agent.plex.engine import Engine
from agent.source_checks import preflight_report, refuse_failures
from shared.errors import PreflightRefused

if TYPE_CHECKING:
    from agent.settings import Settings
    from agent.source.library import LibrarySource
    from shared.plex.sqlite_check import DatabaseCheck
    from shared.wire.protocol import MediaFolder


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
    owner_source: str = "the library's files"
    """Where :attr:`owner` is from, for people."""


def read_library(source: LibrarySource, settings: Settings, depth: DatabaseCheck) -> PlannedLibrary:
    """Return the facts of a library. Read-only, but it walks the tree and checks the databases.

    Args:
        source: the library.
        settings: the agent's settings.
        depth: how much of Plex's databases to check.

    Raises:
        CutoverRefused: If the engine does not describe the container in the settings.
        PreflightRefused: If a check fails, or the version of Plex is not known.
    """
    facts = SourceFacts(source, settings, depth)
    report = preflight_report(facts)
    refuse_failures(report, "'plexodus-agent preflight' says what to do.")
    if report.plex_version is None:
        raise PreflightRefused(
            "the version of Plex is not known, and so not the tag of its image",
            path=source.about.path,
            hint="Start Plex, then run this again.",
        )
    about, environment = os.stat(facts.server), {}
    if settings.container:
        environment = Engine(settings.engine_socket).inspect(settings.container).environment
    owner, owner_source = choose_owner((about.st_uid, about.st_gid), environment)
    return PlannedLibrary(
        version=report.plex_version,
        content_bytes=report.content_bytes,
        entries=report.entries,
        owner=owner,
        regenerable=facts.tree.regenerable,
        media=report.media,
        owner_source=owner_source,
    )
