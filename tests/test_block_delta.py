"""Large files that changed between two passes: little else than what was written is brought."""

from __future__ import annotations

import os
import random
import shutil
import time
from typing import TYPE_CHECKING

import pytest
from rig.deltas import LARGE, RACY, finish, frames, grow_steady, sent_bytes
from rig.volume import FRAME, cut_at, pull

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Small files in folders, a large one, links of both kinds; all of it some seconds old."""
    return grow_steady(tmp_path / "vm" / "Library")


def test_one_block_of_a_large_file_has_changed(ready: Agent, target: Path, library: Path) -> None:
    """The others are asked for by their digests, and not sent."""
    with (library / "large").open("r+b") as file:
        file.seek(5 * FRAME + 17)
        file.write(b"new")
    finish(target, ready, library)
    assert frames(ready) == (1, LARGE - 1)


def test_database_with_pages_changed_here_and_there(
    agent: Agent, target: Path, library: Path
) -> None:
    """What is sent is in the order of what has changed, though that is in every block."""
    database, content = library / "x.db", random.Random(9)  # noqa: S311 - reproducible
    database.write_bytes(content.randbytes(LARGE * FRAME))
    time.sleep(RACY)
    assert pull(target, agent, "--until", "ready").code == 0
    before = sent_bytes(agent)
    with database.open("r+b") as file:
        for page in content.sample(range(LARGE * FRAME // 4096), LARGE):
            file.seek(page * 4096)
            file.write(content.randbytes(4096))
    finish(target, agent, library)
    assert sent_bytes(agent) - before < LARGE * FRAME // 20


@pytest.mark.parametrize("size", [(LARGE + 1) * FRAME + 1, 3 * FRAME, FRAME, 0])
def test_large_file_has_another_size(ready: Agent, target: Path, library: Path, size: int) -> None:
    """Longer, shorter by whole blocks, or no large file any more."""
    os.truncate(library / "large", size)
    finish(target, ready, library)


def test_database_that_keeps_its_times(agent: Agent, target: Path, library: Path) -> None:
    """Memory maps may change one at any time: its blocks are always asked for."""
    database = library / "folder0" / "x.db"
    shutil.copy(library / "large", database)
    time.sleep(RACY)
    assert pull(target, agent, "--until", "ready").code == 0
    agent.log.write_bytes(b"")
    finish(target, agent, library)
    assert frames(agent) == (0, LARGE)


@pytest.mark.parametrize("call", [1, 2])
def test_killed_between_two_blocks(ready: Agent, target: Path, library: Path, call: int) -> None:
    """Blocks of two times are in one file then; each is known by its own digest."""
    with (library / "large").open("r+b") as file:
        for block in (0, 2, 5):
            file.seek(block * FRAME)
            file.write(b"new")
    with cut_at("initpuller.volume.journal.Journal.done", call):
        pull(target, ready)
    with (library / "large").open("r+b") as file:
        file.seek(3 * FRAME)
        file.write(b"newer")
    finish(target, ready, library)
