"""A pull of real size that is killed when almost all is done."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.programs import Puller
from rig.waiting import wait_until

from bench.plexlibrary import SHAPES, make_library

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent

_WASTE = 0.02


@pytest.mark.long
def test_puller_killed_at_99_percent(tmp_path: Path, new_agent: Callable[[Path], Agent]) -> None:
    """After a kill at 99 %, the next run repeats at most 2 % of requests, bytes and files."""
    library = tmp_path / "vm" / "Library"
    make_library(library, SHAPES["l1"])
    agent = new_agent(library)
    puller = Puller(tmp_path / "config", tmp_path / "log", agent.pair())
    puller.target.mkdir()
    agent.start()
    frames = agent.scan().frames
    staging = puller.target / ".plexodus" / "staging"

    process = puller.begin()
    wait_until(lambda: _journalled(puller.target) >= 0.99 * frames, meanwhile=process, every=0.002)
    process.kill()
    process.wait()
    before, asked = _files(staging, staging), agent.frames_asked()
    done = puller.pull()
    after = _files(puller.target / "Library", puller.target)
    again = agent.frames_asked()[len(asked) :]

    assert done.code == 0, done.text
    assert rsync_differences(library, puller.target / "Library") == []
    assert len(set(again) & set(asked)) <= _WASTE * frames
    written_again = [each for each, inode in before.items() if after[each] != inode]
    assert len(written_again) <= _WASTE * len(after)


def _journalled(target: Path) -> int:
    """Return how many frames the journals on the volume hold, read without our code."""
    found = (each.read_text() for each in (target / ".plexodus").glob("journal-*"))
    return sum(len(re.findall(r"(?m)^done \d+ [0-9a-f]{64}$", text)) for text in found)


def _files(tree: Path, top: Path) -> dict[str, int]:
    """Return the inode of each file below ``tree``, by its path relative to ``top``."""
    return {
        str(path.relative_to(top)): path.lstat().st_ino
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
