"""The context of the steps of a cutover: collaborators in the agent, and time limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.timestamps import boottime

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class CutoverLimits:
    """The times that the settings set."""

    lease_seconds: float
    """For so long Plex stays stopped while its puller is silent."""
    stop_seconds: float
    """For so long Plex may take to stop."""


@dataclass(frozen=True)
class CutoverContext:
    """Functions of other rooms."""

    tell: Callable[[str, str], None]
    """Adds an event to the migration log."""
    logs_of_databases: Callable[[], list[str]]
    """Returns the paths of the ``-wal`` files that exist; a clean stop of Plex removes them."""
    has_cold: Callable[[str], bool]
    """Returns whether there is a cold snapshot of this name."""
    clock: Callable[[], float] = boottime
    agent: str = ""
    """The agent's version and a digest of its settings, as pullers are told."""
