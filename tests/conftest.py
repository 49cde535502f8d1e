"""Fixtures: a fresh agent and puller for each test, on real sockets and real folders."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from rig.programs import Agent, Puller
from rig.volume import grow_small, pull

from bench.plexlibrary import LibraryShape, make_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


settings.register_profile("plexodus", deadline=None)  # how long a test takes proves nothing
settings.load_profile("plexodus")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Give back the handlers that a pull within this process replaces at its end."""
    before = {
        each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Plex library of version 1.40.1, which nobody changes: copy it for that."""
    library = tmp_path_factory.mktemp("made") / "Library"
    make_library(library, LibraryShape(300, 8_000_000, 2_000_000))
    return library


@pytest.fixture(scope="session")
def moved(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume that it was pulled onto, which nobody changes: copy it for that."""
    place = tmp_path_factory.mktemp("moved")
    agent, target = Agent(place / "state", made, place / "agent.log"), place / "config"
    target.mkdir()
    agent.pair()
    agent.start()
    try:
        done = pull(target, agent)
    finally:
        agent.kill()
    assert done.code == 0, done.text
    return target


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small library of 12 frames: folders, small files, two large ones, links."""
    return grow_small(tmp_path / "vm" / "Library")


@pytest.fixture
def plex_library(tmp_path: Path, made: Path) -> Path:
    """A small Plex library that the test may change."""
    return shutil.copytree(made, tmp_path / "vm" / "Library", symlinks=True)


@pytest.fixture
def new_agent(tmp_path: Path) -> Iterator[Callable[[Path], Agent]]:
    """Makes agents, not yet started; all are killed at the end."""
    made: list[Agent] = []

    def make(library: Path) -> Agent:
        number = len(made)
        agent = Agent(tmp_path / f"state{number}", library, tmp_path / f"agent{number}.log")
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.kill()


@pytest.fixture
def agent(new_agent: Callable[[Path], Agent], library: Path) -> Agent:
    """An agent for :func:`library`, paired and serving."""
    agent = new_agent(library)
    agent.pair()
    agent.start()
    return agent


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty volume."""
    target = tmp_path / "config"
    target.mkdir()
    return target


@pytest.fixture
def puller(tmp_path: Path, agent: Agent, target: Path) -> Puller:
    """A puller paired with :func:`agent`, with an empty target."""
    return Puller(target, tmp_path / "puller.log", agent.pairing)


@pytest.fixture
def ready(agent: Agent, target: Path) -> Agent:
    """The agent, after a pull until ready: nothing of what it asked is counted any more."""
    done = pull(target, agent, "--until", "ready")
    assert done.code == 0, done.text
    assert not (target / "Library").exists()
    agent.log.write_bytes(b"")
    return agent
