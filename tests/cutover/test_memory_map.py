"""Stores through a memory map into a page that is dirty already, which leave a file's times alone.

The library has a filesystem of its own: nothing but the agent writes it back meanwhile.
"""

from __future__ import annotations

import mmap
import os
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import moved
from rig.cutover.deltas import frames, racy_seconds
from rig.mounts import NEEDS_ROOT, ext4, tmpfs
from rig.oracle import rsync_differences, sums_hold
from rig.plex.commands import SERVER, plex_commands
from rig.programs import Agent, Puller
from rig.volume import FRAME, pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [NEEDS_ROOT, pytest.mark.long]
SMALL, LARGE = "folder/index.bin", "folder/large.bin"


def grow(library: Path) -> Path:
    """Make a library of an application that maps one small and one large file."""
    folder = library / "folder"
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / f"file{number}").write_bytes(os.urandom(30_000))
    (library / SMALL).write_bytes(os.urandom(300_000))
    (library / LARGE).write_bytes(os.urandom(3 * FRAME))
    os.sync()
    return library


@contextmanager
def mapped(*files: Path) -> Iterator[Callable[[], None]]:
    """Map ``files``, dirty a page of each, wait until that is old; yields what stores again."""
    maps = []
    for file in files:
        with file.open("r+b") as opened:
            maps.append(mmap.mmap(opened.fileno(), 0))

    def store() -> None:
        for each in maps:
            each[8192:8200] = os.urandom(8)

    store()
    time.sleep(racy_seconds(3))
    try:
        yield store
    finally:
        for each in maps:
            each.close()


def patched(agent: Agent, folder: Path, syncfs: str) -> None:
    """Start ``agent`` with another ``syncfs``, given as the body of a function of ``fd``."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import os\nfrom agent.source import writeback\ndef syncfs(fd):\n    {syncfs}\n"
        "writeback.syncfs = syncfs\n"
    )
    agent.start(environment={"PYTHONPATH": str(folder)})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount an ext4 that holds only the library."""
    with ext4(tmp_path / "disk", tmp_path / "disk.img") as disk:
        yield disk


@pytest.fixture
def new(disk: Path, new_agent: Callable[[Path], Agent]) -> Agent:
    """Return an agent for a library on :func:`disk`, paired and not started."""
    agent = new_agent(grow(disk / "Library"))
    agent.pair()
    return agent


def ready_then_store(agent: Agent, target: Path) -> None:
    """A live pass that finds dirty pages of some age, then stores into these, then the move."""
    library = agent.library
    with mapped(library / SMALL, library / LARGE) as store:
        assert pull(target, agent, "--until", "ready").code == 0
        agent.log.write_bytes(b"")
        store()
        done = pull(target, agent)
        assert done.code == 0, done.text


def test_store_after_the_live_pass_arrives(new: Agent, target: Path) -> None:
    """A store into a small and a large file arrives, and unchanged files are not sent."""
    new.start()
    ready_then_store(new, target)
    assert rsync_differences(new.library, target / "Library") == []
    assert sums_hold(target)
    sent, same = frames(new)
    assert 2 <= sent <= 3
    assert same == 2


def test_without_the_sync_the_store_would_be_lost(new: Agent, target: Path, tmp_path: Path) -> None:
    """Without the sync the store is lost, which shows that the other tests can fail."""
    patched(new, tmp_path / "patch", "pass")
    ready_then_store(new, target)
    names = (SMALL, LARGE)
    lost = [(new.library / n).read_bytes() != (target / "Library" / n).read_bytes() for n in names]
    assert lost == [True, True]


def test_store_is_brought_where_syncfs_is_refused(new: Agent, target: Path, tmp_path: Path) -> None:
    """If syncfs is refused, every file is read again and only differences are sent."""
    patched(new, tmp_path / "patch", "raise PermissionError(1, 'refused')")
    ready_then_store(new, target)
    assert rsync_differences(new.library, target / "Library") == []
    assert frames(new)[0] <= 3


def test_disk_that_does_not_take_what_was_written(new: Agent, target: Path, tmp_path: Path) -> None:
    """If a disk loses writes of the page cache, the pull ends with the disk's name."""
    patched(new, tmp_path / "patch", "raise OSError(5, 'lost')")
    done = pull(target, new)
    assert done.code == 15, done.text
    assert "a write to the disk of the library has failed (Input/output error)" in done.reason()
    assert str(new.library) in done.reason()
    assert not (target / "Library").exists()


def test_store_in_a_filesystem_in_memory(
    tmp_path: Path, target: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """On tmpfs every file is read again, because stores never change times there."""
    with tmpfs(tmp_path / "memory") as memory:
        agent = new_agent(grow(memory / "Library"))
        agent.pair()
        agent.start()
        ready_then_store(agent, target)
        assert rsync_differences(agent.library, target / "Library") == []
        assert frames(agent)[0] <= 3
        agent.kill()


def test_store_in_a_filesystem_mounted_below(
    disk: Path, new: Agent, target: Path, tmp_path: Path
) -> None:
    """Every filesystem of the library is synced, not only the top one."""
    with ext4(disk / "Library" / "more", tmp_path / "more.img") as more:
        (more / "mapped").write_bytes(os.urandom(100_000))
        os.sync()
        new.start()
        with mapped(more / "mapped") as store:
            assert pull(target, new, "--until", "ready").code == 0
            store()
            done = pull(target, new)
            assert done.code == 0, done.text
        assert rsync_differences(new.library, target / "Library") == []
        new.kill()


def test_hard_link_to_a_file_that_is_not_trusted(
    tmp_path: Path, target: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """Both names have the new content, as one file."""
    with tmpfs(tmp_path / "memory") as memory:
        agent = new_agent(grow(memory / "Library"))
        (agent.library / "link").hardlink_to(agent.library / SMALL)
        agent.pair()
        agent.start()
        ready_then_store(agent, target)
        arrived = target / "Library"
        assert (arrived / "link").samefile(arrived / SMALL)
        assert rsync_differences(agent.library, arrived) == []
        agent.kill()


def test_store_before_plex_is_stopped_for_the_move(
    disk: Path,
    made: Path,
    tmp_path: Path,
    target: Path,
    new_agent: Callable[[Path], Agent],
) -> None:
    """In a cutover, a file that Plex mapped arrives as Plex left it."""
    library = disk / "Library"
    shutil.copytree(made, library, symlinks=True)
    file = library / SERVER / "Metadata" / "index.bin"
    file.write_bytes(os.urandom(300_000))
    os.sync()
    agent = new_agent(library)
    with plex_commands(tmp_path / "plex", library / SERVER) as plex, mapped(file) as store:
        agent.pair()
        agent.settings = plex.settings(tmp_path)
        agent.start()
        puller = Puller(target, tmp_path / "puller.log", agent.pairing, cutover=True)
        assert puller.pull("--until", "ready").code == 0
        store()
        done = puller.pull()
        assert done.code == 0, done.text
        moved(agent, puller, plex, library)
    agent.kill()
