"""The choice of what manages Plex: a unit, a container or a pair of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.plex.commands import Commands
from agent.plex.container import Container
from agent.plex.engine import Engine
from agent.plex.folder import find_library_in_container, find_library_of_unit
from agent.plex.systemd_unit import SystemdUnit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.plex.container import ContainerRecord
    from agent.plex.service import PlexService
    from agent.settings import Settings


def plex_service(settings: Settings) -> PlexService:
    """Return what the settings name: commands, a container, or the unit."""
    if settings.stop_command:
        return Commands(settings.stop_command, settings.start_command)
    if settings.container:
        return Container(Engine(settings.engine_socket), settings.container)
    return SystemdUnit(settings.unit)


def recorded_service(starting: Sequence[str], container: ContainerRecord | None) -> PlexService:
    """Return what a record of the cutover names, for an undo without readable settings."""
    if container is not None:
        return Container(Engine(container.socket), container.name)
    return Commands([], starting)


def find_library(settings: Settings) -> str:
    """Return the path of the folder to move: the one that the settings name, or Plex's own.

    Raises:
        PreflightRefused: If Plex's folder is not in the expected place.
        CutoverRefused: If the engine does not describe the container.
    """
    if settings.library:
        return settings.library
    if settings.container:
        return find_library_in_container(Engine(settings.engine_socket), settings.container)
    return find_library_of_unit(settings.unit)
