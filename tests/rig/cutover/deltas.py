"""Libraries that are old enough for a delta after live passes, and counts of frames and bytes."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections import deque
from typing import TYPE_CHECKING

from rig.oracle import rsync_differences, sums_hold
from rig.programs import Agent, read_log
from rig.volume import FRAME, RECEIPT_FILES, left_of_pull, pull

if TYPE_CHECKING:
    from pathlib import Path

RACY = 2.1
"""Seconds after a change until the agent trusts the ctime of a small file."""
LARGE = 6
"""Number of frames of the large file."""


def racy_seconds(frames: int) -> float:
    """Return the seconds until the agent trusts the ctime of a file of ``frames`` frames.

    The agent allows a second for a write of 4 MiB.
    """
    return RACY + frames


class SteadyLibraries:
    """Libraries that are old enough for a delta. The next ones age while a test runs.

    Args:
        folder: the folder of all libraries.
    """

    _AHEAD = 6

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        self._aging: deque[tuple[float, Path]] = deque()

    def take(self) -> Path:
        """Return a library that has not been used yet; wait until it is old enough."""
        while len(self._aging) <= self._AHEAD:
            self._made += 1
            library = _grow(self._folder / str(self._made) / "Library")
            self._aging.append((time.monotonic(), library))
        made, library = self._aging.popleft()
        time.sleep(max(0.0, made + racy_seconds(LARGE) - time.monotonic()))
        return library

    def drop(self, library: Path) -> None:
        """Remove a library that was taken."""
        shutil.rmtree(library.parent)


def _grow(library: Path) -> Path:
    """Make small files in folders, a large one, and links of both kinds."""
    content = random.Random(5)  # noqa: S311 - reproducible
    for folder in range(6):
        below = library / f"folder{folder}" / "below"
        below.mkdir(parents=True)
        for number in range(30):
            (below / f"{number:02}").write_bytes(content.randbytes(40_000))
        (below / "empty").touch()
        (below / "link").symlink_to("00")
        (below / "hard").hardlink_to(below / "01")
    (library / "large").write_bytes(content.randbytes(LARGE * FRAME))
    (library / "empty").mkdir()
    return library


def frames(agent: Agent) -> tuple[int, int]:
    """Return the number of frames that were sent, and of those that had not changed."""
    status = [
        line["status"]
        for line in read_log(agent.log)
        if line.get("event") == "request" and "/frames/" in line["path"]
    ]
    return status.count(200), status.count(304)


def finish(target: Path, agent: Agent, library: Path) -> None:
    """Pull again, and assert that exactly the library arrives and only the receipt's files stay."""
    done = pull(target, agent)
    assert done.code == 0, done.text
    assert rsync_differences(library, target / "Library") == []
    assert sums_hold(target)
    assert left_of_pull(target) == RECEIPT_FILES


def sent_bytes(agent: Agent) -> int:
    """Return the bytes of bodies that the agent has sent, from its metrics."""
    found = re.search(
        r"^plexodus_agent_sent_bytes_total (\S+)$", agent.get("/metrics").decode(), re.MULTILINE
    )
    assert found is not None
    return int(float(found[1]))
