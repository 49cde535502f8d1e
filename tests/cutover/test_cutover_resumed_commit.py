"""A pull was killed right before its commit, and the volume cannot be published onto any more.

The agent must not commit then: no server would run.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import dies, moved, not_moved, pull_with_command, unheard_commit
from rig.mounts import NEEDS_ROOT, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller

pytestmark = pytest.mark.long

SETTINGS = {"lease_seconds": 600.0, "stop_seconds": 30}
"""The lease outlasts each test: only a request has Plex started."""
BEFORE_COMMIT = ("initpuller.pull.cutover", "Cutover.commit")
PAGES = 25 * 4096
"""Bytes that are enough for the last records, and less than is asked for before a commit."""


@pytest.fixture
def small(target: Path) -> Iterator[Path]:
    """Mount a volume of its own, whose free space the test may take."""
    with mounted(target, "-t", "tmpfs", "-o", "size=96m", "plexodus-test"):
        yield target


def fill(volume: Path) -> Path:
    """Take all free space, and return the file that has it."""
    filler = volume / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while os.write(file.fileno(), bytes(4096)):
            pass
    return filler


@NEEDS_ROOT
def test_volume_is_full_before_the_commit(
    small: Path, agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """Plex is started at once, and moves when there is space."""
    dies(puller, *BEFORE_COMMIT)
    assert not plex.is_running()
    filler = fill(small)
    refused = puller.pull()
    assert refused.code == 15, refused.text
    plex.wait_until(running=True)
    not_moved(agent, puller, plex)
    filler.unlink()
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)


@NEEDS_ROOT
def test_volume_is_nearly_full_after_the_commit(
    small: Path, agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """Plex stays stopped in any case, so the library is published as long as that is possible."""
    unheard_commit(puller)
    filler = fill(small)
    os.truncate(filler, filler.stat().st_size - PAGES)
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)


def test_name_is_taken_right_before_the_commit(
    agent: Agent, puller: Puller, plex: PlexCommands, tmp_path: Path
) -> None:
    """Plex is started at once, and the other library stays."""
    dies(puller, *BEFORE_COMMIT)
    other = puller.target / "Library"
    taking = tmp_path / "taking"
    taking.write_text(f"#!/bin/sh\nmkdir -p '{other}'; echo theirs > '{other}/mark'\n")
    taking.chmod(0o755)
    code, text = pull_with_command(puller, "initpuller.pull.pending", "find_damage", taking)
    assert code == 14, text
    plex.wait_until(running=True)
    assert (other / "mark").read_text() == "theirs\n"
    (other / "mark").unlink()
    other.rmdir()
    not_moved(agent, puller, plex)
