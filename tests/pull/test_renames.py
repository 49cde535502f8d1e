"""Files and folders that are renamed between two passes: renamed on the volume, and not sent."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest
from rig.deltas import LARGE, finish, frames
from rig.volume import FRAME, cut_at, pull

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent


@pytest.fixture
def library(steady_library: Path) -> Path:
    """Small files in folders, a large one, links of both kinds; all of it some seconds old."""
    return steady_library


def test_large_file(ready: Agent, target: Path, library: Path) -> None:
    """It is asked for by the digests of its blocks, at its new path."""
    (library / "large").rename(library / "folder3" / "larger")
    finish(target, ready, library)
    assert frames(ready) == (0, LARGE)


def test_folder_of_small_files(ready: Agent, target: Path, library: Path) -> None:
    """With its links, and an empty file; the frame of all of it is asked for by its digest."""
    (library / "folder1" / "below").rename(library / "renamed")
    finish(target, ready, library)
    assert frames(ready) == (0, 1)


def test_small_files_beside_new_ones(ready: Agent, target: Path, library: Path) -> None:
    """A frame with something new in it is sent."""
    below = library / "folder1" / "below"
    (below / "03").rename(below / "03-renamed")
    (below / "new").write_bytes(b"new")
    finish(target, ready, library)
    assert frames(ready) == (1, 0)


def test_logs_that_are_rotated(ready: Agent, target: Path, library: Path) -> None:
    """Each takes the place of the next; only the newest is sent."""
    logs = [library / "large", *(library / f"large.{number}" for number in range(1, 4))]
    for number, log in enumerate(logs[1:]):
        content = random.Random(number)  # noqa: S311 - reproducible
        log.write_bytes(content.randbytes(2 * FRAME))
    assert pull(target, ready, "--until", "ready").code == 0
    ready.log.write_bytes(b"")
    logs[3].unlink()
    for older, newer in ((3, 2), (2, 1), (1, 0)):
        logs[newer].rename(logs[older])
    logs[0].write_bytes(b"the newest")
    finish(target, ready, library)
    assert frames(ready) == (1, 2 + 2 + LARGE)


def test_files_that_swap_their_names(ready: Agent, target: Path, library: Path) -> None:
    """Also a large one with a folder of small ones, each where the other was."""
    (library / "other").write_bytes(bytes(2 * FRAME))
    assert pull(target, ready, "--until", "ready").code == 0
    ready.log.write_bytes(b"")
    (library / "other").rename(library / "once")
    (library / "folder2" / "below").rename(library / "other")
    (library / "large").rename(library / "folder2" / "below")
    (library / "once").rename(library / "large")
    finish(target, ready, library)
    assert frames(ready) == (0, 1 + 2 + LARGE)


def test_other_content_under_an_old_mtime(ready: Agent, target: Path, library: Path) -> None:
    """What looks like a rename is none: the agent is asked, and what differs is sent."""
    small, large = library / "folder2" / "below" / "11", library / "large"
    for file in (small, large):
        info = file.stat()
        with file.open("r+b") as opened:
            opened.write(b"other")
        os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
        file.rename(file.with_name("renamed"))
    finish(target, ready, library)
    assert frames(ready) == (2, LARGE - 1)


def test_damaged_on_the_volume_before(ready: Agent, target: Path, library: Path) -> None:
    """What is renamed is read back as all else is; what is gone is sent."""
    staged = target / ".plexodus" / "staging" / "Library"
    (staged / "folder1" / "below" / "07").write_bytes(bytes(40_000))
    (staged / "folder2" / "below" / "07").unlink()
    (staged / "large").unlink()
    for number in (1, 2):
        (library / f"folder{number}" / "below").rename(library / f"renamed{number}")
    (library / "large").rename(library / "larger")
    finish(target, ready, library)


@pytest.mark.parametrize("call", [1, 3, 5, 7, 10])
def test_killed_between_two_renames(ready: Agent, target: Path, library: Path, call: int) -> None:
    """What is between its places then is sent; nothing is taken for what it is not."""
    large, other = library / "large", library / "other"
    shutil.copy(large, other)
    with other.open("r+b") as file:
        file.write(b"other")
    assert pull(target, ready, "--until", "ready").code == 0
    large.rename(library / "once")
    other.rename(large)
    (library / "once").rename(other)
    below = library / "folder1" / "below"
    for number in range(30):
        (below / f"{number:02}").rename(below / f"{number:02}-renamed")
    with cut_at("initpuller.volume.reuse.renames._move", call if call < 10 else 40):
        pull(target, ready, "--until", "ready")
    finish(target, ready, library)


@pytest.mark.parametrize("call", [1, 2])
def test_killed_while_a_file_comes_to_a_folders_place(
    ready: Agent, target: Path, library: Path, call: int
) -> None:
    """The same snapshot is gone on with: what is in the way goes, and the file is sent."""
    shutil.rmtree(library / "folder2" / "below")
    (library / "large").rename(library / "folder2" / "below")
    with cut_at("initpuller.volume.reuse.renames._move", call):
        pull(target, ready, "--until", "ready")
    assert pull(target, ready, "--until", "ready").code == 0
    finish(target, ready, library)


def test_killed_with_frames_held(ready: Agent, target: Path, library: Path) -> None:
    """The next run goes on with what is renamed already."""
    (library / "large").rename(library / "larger")
    (library / "folder1" / "below").rename(library / "renamed")
    with cut_at("initpuller.volume.records.journal.Journal.done"):
        pull(target, ready)
    ready.log.write_bytes(b"")
    finish(target, ready, library)
    assert frames(ready) == (0, 1 + LARGE)
