"""Volumes of filesystems that people have beside ext4: each move is exact, or refused at once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.mounts import filesystem, mergerfs, mounted
from rig.oracle import rsync_differences, sums_hold
from rig.plex.commands import SERVER
from rig.volume import pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.programs import Agent

pytestmark = pytest.mark.platforms
MERGED = "minfreespace=10M,category.create=mfs"


@pytest.fixture
def agent(made: Path, new_agent: Callable[[Path], Agent]) -> Agent:
    """Return an agent that serves a Plex library."""
    agent = new_agent(made)
    agent.pair()
    agent.start()
    return agent


@pytest.fixture
def branches(tmp_path: Path) -> Iterator[list[Path]]:
    """Return two disks."""
    with (
        filesystem(tmp_path / "disk0", tmp_path / "0.img", "ext4") as one,
        filesystem(tmp_path / "disk1", tmp_path / "1.img", "ext4") as other,
    ):
        yield [one, other]


def exact(agent: Agent, volume: Path) -> None:
    """Assert that a pull onto ``volume`` gives the library, and a second one changes nothing."""
    target = volume / "config"
    target.mkdir()
    done = pull(target, agent)
    assert done.code == 0, done.text
    assert rsync_differences(agent.library, target / "Library") == []
    assert sums_hold(target)
    asked = len(agent.frames_asked())
    assert pull(target, agent).code == 0
    assert len(agent.frames_asked()) == asked


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_library_on_another_filesystem(agent: Agent, tmp_path: Path, kind: str) -> None:
    """XFS and Btrfs keep everything."""
    with filesystem(tmp_path / "disk", tmp_path / "disk.img", kind) as volume:
        exact(agent, volume)


def test_library_on_several_disks(agent: Agent, tmp_path: Path, branches: list[Path]) -> None:
    """On mergerfs with a page cache, databases work, and the library arrives."""
    options = f"{MERGED},cache.files=auto-full,dropcacheonclose=true"
    with mergerfs(tmp_path / "pool", branches, options) as volume:
        exact(agent, volume)


def test_disks_on_which_databases_do_not_work(
    agent: Agent, tmp_path: Path, branches: list[Path]
) -> None:
    """Mergerfs without a page cache has no shared memory: the pull is refused, with the option."""
    with mergerfs(tmp_path / "pool", branches, f"{MERGED},cache.files=off") as volume:
        target = volume / "config"
        target.mkdir()
        done = pull(target, agent)
        assert done.code == 15, done.text
        assert "write-ahead log" in done.reason()
        assert "cache.files=auto-full" in done.text
        assert not (target / "Library").exists()


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_artwork_on_a_second_disk_of_the_vm(
    plex_library: Path,
    new_agent: Callable[[Path], Agent],
    target: Path,
    tmp_path: Path,
    kind: str,
) -> None:
    """A filesystem that is mounted in the place of Metadata moves with the library around it."""
    place = plex_library / SERVER / "Metadata"
    kept = tmp_path / "Metadata"
    place.rename(kept)
    with filesystem(tmp_path / "disk", tmp_path / "disk.img", kind) as disk:
        subprocess.run(["cp", "-a", f"{kept}/.", disk], check=True)
        place.mkdir()
        with mounted(place, "--bind", disk):
            agent = new_agent(plex_library)
            agent.pair()
            agent.start()
            done = pull(target, agent)
            assert done.code == 0, done.text
            assert rsync_differences(plex_library, target / "Library") == []
            assert sums_hold(target)
            arrived = target / "Library" / SERVER / "Metadata"
            assert any(each.is_file() for each in arrived.rglob("*"))
