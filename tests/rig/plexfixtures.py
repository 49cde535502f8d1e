"""Fixtures of tests that move a library whose Plex is at work, and stopped by the agent.

A module that imports them may say ``SETTINGS``, of the agent.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from rig.plexcommands import PlexCommands, plex_commands
from rig.programs import Agent, Puller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SERVER = "Application Support/Plex Media Server"


@pytest.fixture
def library(tmp_path: Path, made: Path) -> Path:
    """A small Plex library of this test's own."""
    library = tmp_path / "vm" / "Library"
    shutil.copytree(made, library, symlinks=True)
    return library


@pytest.fixture
def plex(tmp_path: Path, library: Path) -> Iterator[PlexCommands]:
    """Plex, at work."""
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
    """An agent that can stop it."""
    agent = new_agent(library)
    agent.pair()
    agent.settings = plex.settings(tmp_path, **getattr(request.module, "SETTINGS", {}))
    agent.start()
    return agent


@pytest.fixture
def puller(tmp_path: Path, agent: Agent, target: Path) -> Puller:
    """A puller as its users start it: with cutover."""
    return Puller(target, tmp_path / "puller.log", agent.pairing, cutover=True)
