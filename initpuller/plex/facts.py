"""The facts that identify a Plex server, and whether the running server is the one that moved."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.checks import CheckId
from shared.plex.library import DATABASE_FOLDER, DATABASES, SectionFacts, ServerFacts
from shared.plex.preferences import read_preferences
from shared.plex.sqlite_query import DatabaseError, query
from shared.plex.version import find_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initpuller.plex.api import ApiSection
    from shared.checks import Check

_SECTIONS = (
    "SELECT s.id, s.name, count(m.id) FROM library_sections s LEFT JOIN metadata_items m"
    " ON m.library_section_id = s.id AND m.deleted_at IS NULL AND m.parent_id IS NULL"
    " AND (m.metadata_type = s.section_type OR s.section_type = 13 AND m.metadata_type = 14)"
    " GROUP BY s.id ORDER BY s.id"
)
"""Top-level items of each section: films, shows, artists; photos (13) and their albums."""
_OTHER_LIBRARY = (
    "Plex did not start on the library that was moved: is the volume mounted at /config?"
)


def read_facts(server: str, version: str | None) -> ServerFacts:
    """Return the identity and contents of the server in the folder ``server``, as far as readable.

    ``version`` is that of the Plex that has written it.
    """
    identity, sections = "", []
    with suppress(OSError, ValueError):
        preferences = read_preferences(server)
        identity = preferences.get("ProcessedMachineIdentifier", "")
    with suppress(OSError, DatabaseError):
        [rows] = query(os.path.join(server, DATABASE_FOLDER, DATABASES[0]), [_SECTIONS])
        sections = [
            SectionFacts(int(number), str(name), int(items)) for number, name, items in rows
        ]
    return ServerFacts(version or "", identity, sections)


def check_identity(facts: ServerFacts, machine_identifier: str) -> Check:
    """Return whether the running server has the moved server's identity.

    A server of another identity is a new one, without the clients, history and shares.
    """
    if not facts.machine_identifier:
        return CheckId.RUNNING_IDENTITY.warning(f"{machine_identifier}; the source's is not known")
    if facts.machine_identifier == machine_identifier:
        return CheckId.RUNNING_IDENTITY.passed(machine_identifier)
    return CheckId.RUNNING_IDENTITY.failure(
        f"this server is {machine_identifier}, the source was {facts.machine_identifier}",
        _OTHER_LIBRARY,
    )


def check_running_version(facts: ServerFacts, version: str) -> Check:
    """Return whether the running version can read the moved database."""
    ours, theirs = find_version(version), find_version(facts.version)
    if ours is None or theirs is None:
        return CheckId.RUNNING_VERSION.warning(f"{version or 'unknown'}; the source's is not known")
    if ours == theirs:
        return CheckId.RUNNING_VERSION.passed(f"{ours}, as the source")
    if ours > theirs:
        return CheckId.RUNNING_VERSION.passed(
            f"{ours}, the source was {theirs}: its database is migrated"
        )
    advice = f"Use the image's tag {theirs} or a newer one, on a fresh copy of the library."
    return CheckId.RUNNING_VERSION.failure(f"{ours} is older than the source's {theirs}", advice)


def check_sections(moved: Sequence[SectionFacts], running: Sequence[ApiSection]) -> Check:
    """Return whether each section is there, with at least as many items as the source had."""
    now = {section.number: section for section in running}
    lost = [each.name for each in moved if each.number not in now]
    fewer = [
        f"{each.name} has {now[each.number].items} items of {each.items}"
        for each in moved
        if each.number in now and now[each.number].items < each.items
    ]
    if lost:
        return CheckId.RUNNING_SECTIONS.failure(f"not there: {', '.join(lost)}", _OTHER_LIBRARY)
    if fewer:
        advice = "Did a scan run while media was missing? Keep autoEmptyTrash off, mount, scan."
        return CheckId.RUNNING_SECTIONS.warning("; ".join(fewer), advice)
    counts = ", ".join(f"{each.name} {now[each.number].items}" for each in moved) or "none"
    return CheckId.RUNNING_SECTIONS.passed(counts)
