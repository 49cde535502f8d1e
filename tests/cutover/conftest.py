"""Fixtures of tests that move a library whose Plex is at work, and stopped by the agent.

A module sets the agent's settings with ``SETTINGS``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.plex.commands import SERVER, PlexCommands, agent_with_plex, plex_commands
from rig.programs import Agent, Puller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def library(plex_library: Path) -> Path:
    """Return a small Plex library that the test may change."""
    return plex_library


@pytest.fixture
def plex(tmp_path: Path, library: Path) -> Iterator[PlexCommands]:
    """Start a Plex that runs and writes."""
    with plex_commands(tmp_path / "plex", library / SERVER) as plex:
        yield plex


@pytest.fixture
def agent(
    new_agent: Callable[[Path], Agent],
    library: Path,
    plex: PlexCommands,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Agent:
    """Start an agent that can stop and start that Plex."""
    settings = plex.settings(tmp_path, **getattr(request.module, "SETTINGS", {}))
    return agent_with_plex(new_agent, library, settings)


@pytest.fixture
def puller(tmp_path: Path, agent: Agent, target: Path) -> Puller:
    """Return a puller with cutover, as users start it."""
    return Puller(target, tmp_path / "puller.log", agent.pairing, cutover=True)
