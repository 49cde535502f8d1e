"""Facts that several checks of the source share."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from agent.plex.server import installed_version
from agent.source.tree_facts import read_tree_facts
from shared.plex.library import PREFERENCES, server_folder
from shared.plex.preferences import read_preferences

if TYPE_CHECKING:
    from agent.settings import Settings
    from agent.source.library import LibrarySource
    from agent.source.tree_facts import TreeFacts
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
        folder = server_folder(self.path)
        self.server = folder or self.path
        """Path of Plex's own folder. Without :attr:`is_plex`, perhaps the library's own path."""
        self.is_plex = folder is not None and os.path.isdir(folder)

    @cached_property
    def version(self) -> PlexVersion | None:
        """Version of the source's Plex; None if nothing shows it."""
        return installed_version(self.server)

    @cached_property
    def preferences(self) -> dict[str, str] | str:
        """Plex's preferences, or why they cannot be used, with the path."""
        path = os.path.join(self.server, PREFERENCES)
        try:
            values = read_preferences(self.server)
        except OSError as error:
            return f"cannot be read ({error.strerror}): {path}"
        except ValueError as error:
            return f"{error}: {path}"
        return values if values.get("MachineIdentifier") else f"has no MachineIdentifier: {path}"

    @cached_property
    def tree(self) -> TreeFacts:
        """Counts and sizes of the whole tree, and a measurement of the disk."""
        with self.source.opened() as base:
            return read_tree_facts(base, self.source)
