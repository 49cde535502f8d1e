"""Fixtures of tests with Plex in a container of a real engine, which the agent stops by its API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.plex.commands import only_plex
from rig.plex.engines import NAME, Docker, Engine, Podman
from rig.programs import Agent, Puller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session", params=[Docker, Podman])
def loaded_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """Start each engine, with the image."""
    engine = request.param(tmp_path_factory.mktemp("engine"))
    engine.start()
    engine.load_image()
    try:
        yield engine
    finally:
        engine.end()


@pytest.fixture
def engine(loaded_engine: Engine) -> Iterator[Engine]:
    """Return an engine without containers."""
    with only_plex():
        yield loaded_engine
        if not loaded_engine.fails("inspect", "--type", "container", NAME):
            loaded_engine.run("rm", "--force", NAME)


@pytest.fixture
def library(plex_library: Path) -> Path:
    """Return a small Plex library that the test may change."""
    return plex_library


@pytest.fixture
def new_container_agent(
    tmp_path: Path, library: Path, new_agent: Callable[[Path], Agent], engine: Engine
) -> Callable[[float], Agent]:
    """Return a function that starts an agent for the container; it finds the library itself.

    Its parameter is the time for a stop, in seconds.
    """

    def make(stop_seconds: float = 20) -> Agent:
        agent = new_agent(library)
        agent.settings = tmp_path / "agent.toml"
        agent.settings.write_text(
            f'container = "{NAME}"\nengine_socket = "{engine.socket}"\n'
            f"stop_seconds = {stop_seconds}\nlease_seconds = 5\n"
        )
        agent.tells_library = False
        agent.pair()
        agent.start()
        return agent

    return make


@pytest.fixture
def new_puller(tmp_path: Path, target: Path) -> Callable[[Agent], Puller]:
    """Return a function that makes a puller for an agent."""
    return lambda agent: Puller(target, tmp_path / "puller.log", agent.pairing, cutover=True)
