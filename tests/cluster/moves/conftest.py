"""Fixtures of moves inside a cluster: Plex runs on the VM until the agent stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.plex.commands import SERVER, PlexCommands, agent_with_plex, plex_commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.programs import Agent


@pytest.fixture
def plex(tmp_path: Path, library: Path) -> Iterator[PlexCommands]:
    """Start a Plex that runs and writes."""
    with plex_commands(tmp_path / "plex", library / SERVER) as plex:
        yield plex


@pytest.fixture
def agent(
    new_agent: Callable[[Path], Agent], library: Path, plex: PlexCommands, tmp_path: Path
) -> Agent:
    """Start an agent that can stop and start that Plex."""
    return agent_with_plex(new_agent, library, plex.settings(tmp_path))
