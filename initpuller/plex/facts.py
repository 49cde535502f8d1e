"""The facts that identify a Plex server, read from its files before it starts."""

from __future__ import annotations

import os
from contextlib import suppress

from shared.plex.library import DATABASE_FOLDER, DATABASES, SectionFacts, ServerFacts
from shared.plex.preferences import read_preferences
from shared.plex.sqlite_query import DatabaseError, query

_SECTIONS = (
    "SELECT s.id, s.name, count(m.id) FROM library_sections s LEFT JOIN metadata_items m"
    " ON m.library_section_id = s.id AND m.deleted_at IS NULL AND m.parent_id IS NULL"
    " AND (m.metadata_type = s.section_type OR s.section_type = 13 AND m.metadata_type = 14)"
    " GROUP BY s.id ORDER BY s.id"
)
"""Top-level items of each section: films, shows, artists; photos (13) and their albums."""


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
