"""Fixtures: a fresh agent and puller for each test, on real sockets and real folders."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from rig.programs import Agent, Puller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FRAME = 4 * 1024 * 1024


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small library of 12 frames: folders, small files, two large ones, links."""
    root = tmp_path / "vm" / "Library"
    root.mkdir(parents=True)
    content = random.Random(7)  # noqa: S311 - the same tree each time
    for folder in range(20):
        below = root / f"folder{folder:02}" / "Contents"
        below.mkdir(parents=True)
        for number in range(40):
            (below / f"file{number:02}").write_bytes(content.randbytes(content.randrange(30_000)))
        (below / "link").symlink_to("file00")
    (root / "large").write_bytes(content.randbytes(4 * FRAME + 12_345))
    (root / "larger").write_bytes(content.randbytes(3 * FRAME))
    (root / "folder00" / "hard").hardlink_to(root / "large")
    return root


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
