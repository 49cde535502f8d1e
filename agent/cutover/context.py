"""The settings of a cutover, and what the rest of the agent answers for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.plex.sqlite_query import Use, find_holder, find_use
from shared.timestamps import boottime

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class CutoverContext:
    """Time limits, and functions of other rooms."""

    lease_seconds: float
    """Time that Plex stays stopped while its puller is silent."""
    stop_seconds: float
    """Time that Plex may take to stop."""
    tell: Callable[[str, str], None]
    """Adds an event to the migration log."""
    logs_of_databases: Callable[[], list[str]] = list
    """Returns the paths of the ``-wal`` files that exist; a clean stop of Plex removes them."""
    database_folder: Callable[[], str] = str
    """Returns the path of the folder of Plex's databases; empty if it is unknown."""
    find_use: Callable[[str], Use] = find_use
    """Returns who has the database at this path open."""
    find_holder: Callable[[str], int | None] = find_holder
    """Returns the process that opened it first, of those that have it open; None if nobody has."""
    has_cold: Callable[[str], bool] = lambda _: False
    """Returns whether there is a cold snapshot of this name. Nothing is committed without one."""
    has_been_used: Callable[[str], bool] = lambda _: False
    """Returns whether a Plex has run on the library since the scan of the snapshot."""
    clock: Callable[[], float] = boottime
    agent: str = ""
    """The agent's version and a digest of its settings, as pullers see them."""
