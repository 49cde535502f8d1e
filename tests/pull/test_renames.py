"""Files and folders renamed between two passes arrive under their new names only."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest
from rig.cutover.deltas import LARGE, finish, frames
from rig.volume import FRAME, cut_at, pull

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent


@pytest.fixture
def library(steady_library: Path) -> Path:
    """Return small files in folders, a large file and links of both kinds, all some seconds old."""
    return steady_library


def test_large_file_and_folder_of_small_files(ready: Agent, target: Path, library: Path) -> None:
    """Both are fetched at their new paths, and nothing is left at the old paths."""
    (library / "large").rename(library / "folder3" / "larger")
    (library / "folder1" / "below").rename(library / "renamed")
    finish(target, ready, library)
    sent, held = frames(ready)
    assert sent > LARGE
    assert held == 0


def test_rotated_logs(ready: Agent, target: Path, library: Path) -> None:
    """After a log rotation, each log has its own content and not its predecessor's."""
    logs = [library / "large", *(library / f"large.{number}" for number in range(1, 4))]
    for number, log in enumerate(logs[1:]):
        content = random.Random(number)  # noqa: S311 - reproducible
        log.write_bytes(content.randbytes(2 * FRAME))
    assert pull(target, ready, "--until", "ready").code == 0
    logs[3].unlink()
    for older, newer in ((3, 2), (2, 1), (1, 0)):
        logs[newer].rename(logs[older])
    logs[0].write_bytes(b"the newest")
    finish(target, ready, library)


def test_files_that_swap_their_names(ready: Agent, target: Path, library: Path) -> None:
    """Files, large files and folders that swap names arrive at their new paths."""
    (library / "other").write_bytes(bytes(2 * FRAME))
    assert pull(target, ready, "--until", "ready").code == 0
    (library / "other").rename(library / "once")
    (library / "folder2" / "below").rename(library / "other")
    (library / "large").rename(library / "folder2" / "below")
    (library / "once").rename(library / "large")
    finish(target, ready, library)


def test_other_content_under_an_old_mtime(ready: Agent, target: Path, library: Path) -> None:
    """A file that looks like a renamed one, but has other content, arrives with its content."""
    small, large = library / "folder2" / "below" / "11", library / "large"
    for file in (small, large):
        info = file.stat()
        with file.open("r+b") as opened:
            opened.write(b"other")
        os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
        file.rename(file.with_name("renamed"))
    finish(target, ready, library)


@pytest.mark.parametrize("call", [1, 2])
def test_killed_while_a_file_comes_to_a_folders_place(
    ready: Agent, target: Path, library: Path, call: int
) -> None:
    """After a kill while a file replaces a folder, the next run completes the replacement."""
    shutil.rmtree(library / "folder2" / "below")
    (library / "large").rename(library / "folder2" / "below")
    with cut_at("initpuller.volume.reuse.cleanup.remove", call):
        pull(target, ready, "--until", "ready")
    assert pull(target, ready, "--until", "ready").code == 0
    finish(target, ready, library)
