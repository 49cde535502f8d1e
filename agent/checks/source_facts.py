"""Facts that several checks of the source share."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from agent.checks.placement import check_links
from agent.checks.preferences import read_preferences_file
from agent.plex.server import installed_version
from agent.source.plex_facts import read_tree_facts
from shared.plex.library import server_folder

if TYPE_CHECKING:
    from agent.checks.preferences import PreferencesFile
    from agent.settings import Settings
    from agent.source.library import LibrarySource
    from agent.source.plex_facts import TreeFacts
    from shared.checks import Check
    from shared.plex.sqlite_check import DatabaseCheck
    from shared.plex.version import PlexVersion


class SourceFacts:
    """Facts about one library. Each is looked up when a check first needs it.

    Args:
        source: the library.
        settings: the agent's settings.
        depth: how much of Plex's databases to check.
    """

    def __init__(self, source: LibrarySource, settings: Settings, depth: DatabaseCheck) -> None:
        self.source = source
        self.settings = settings
        self.depth = depth
        self.path = source.about.path
        """Path of the library."""

    @cached_property
    def is_plex(self) -> bool:
        """Whether the library has Plex's own folder."""
        server = server_folder(self.path)
        return server is not None and os.path.isdir(server)

    @cached_property
    def server(self) -> str:
        """Path of Plex's own folder. Without :attr:`is_plex`, the library's own path."""
        return server_folder(self.path) or self.path

    @cached_property
    def links(self) -> Check:
        """Result of the check for symlinks in the place of Plex's folders."""
        return check_links(self.path)

    @cached_property
    def version(self) -> PlexVersion | None:
        """Version of the source's Plex; None if nothing shows it."""
        return installed_version(self.server)

    @cached_property
    def preferences(self) -> PreferencesFile:
        """Plex's preferences."""
        return read_preferences_file(self.server)

    @cached_property
    def tree(self) -> TreeFacts:
        """Counts and sizes of the whole tree, and a measurement of the disk."""
        with self.source.opened() as base:
            return read_tree_facts(base, self.source)
