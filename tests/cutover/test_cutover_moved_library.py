"""The library is moved to another disk or folder while the agent serves it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from rig.cutover.cutovers import moved, not_moved
from rig.mounts import NEEDS_ROOT, mounted, tmpfs, unmount
from rig.oracle import rsync_differences
from rig.plex.commands import SERVER
from rig.volume import pull

from agent.snapshots.store import SnapshotStore
from agent.source.identity import library_id
from agent.source.library import CurrentLibrary
from agent.source.writeback import write_back
from shared.errors import SnapshotGone
from shared.wire.protocol import SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller

SETTINGS = {"lease_seconds": 20, "stop_seconds": 10}


def replace(library: Path) -> None:
    """Move the library away, and a copy with new history to its path."""
    old = library.with_name("old")
    library.rename(old)
    shutil.copytree(old, library, symlinks=True)
    watched = library / SERVER / "Metadata" / "watched"
    watched.write_bytes(b"history")


@pytest.fixture
def moving(plex: PlexCommands, puller: Puller) -> Puller:
    """Return a puller whose live pass is complete, so that it would stop Plex next."""
    assert puller.pull("--until", "ready").code == 0
    plex.stop()
    return puller


def test_replaced_between_two_passes(
    agent: Agent, moving: Puller, plex: PlexCommands, library: Path
) -> None:
    """If the library is replaced between two passes, the new one arrives after one stop of Plex."""
    replace(library)
    plex.start()
    done = moving.pull()
    assert done.code == 0, done.text
    assert (moving.target / "Library" / SERVER / "Metadata" / "watched").exists()
    moved(agent, moving, plex, library)
    assert plex.story[-2:] == ["start", "stop"]


@NEEDS_ROOT
def test_mounted_over_between_two_passes(
    agent: Agent, moving: Puller, plex: PlexCommands, library: Path
) -> None:
    """If a disk is mounted over the library's folder, the mounted library arrives."""
    disk = library.parent.with_name("disk")
    shutil.copytree(library.parent, disk, symlinks=True)
    with mounted(library.parent, "--bind", disk):
        (library / SERVER / "Metadata" / "watched").write_bytes(b"history")
        plex.start()
        done = moving.pull()
        assert done.code == 0, done.text
        moved(agent, moving, plex, library)
        agent.kill()


def test_replaced_after_plex_was_stopped_for_the_move(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """Plex is started again, the current library is transferred, and Plex is stopped again."""
    script = plex.here / "stop"
    swap = f"""
if ! [ -e "{library.parent}/old" ]; then
    mv "{library}" "{library.parent}/old"; cp -a "{library.parent}/old" "{library}"
    echo history > "{library / SERVER}/Metadata/watched"
fi
"""
    script.write_text(script.read_text() + swap)
    done = puller.pull()
    assert done.code == 0, done.text
    assert (puller.target / "Library" / SERVER / "Metadata" / "watched").exists()
    moved(agent, puller, plex, library)
    assert plex.story.count("stop") == 2


def test_gone_between_two_passes(
    agent: Agent, moving: Puller, plex: PlexCommands, library: Path
) -> None:
    """A missing library refuses the pull before Plex is stopped, naming the folder."""
    away = library.with_name("away")
    library.rename(away)
    done = moving.pull()
    library.symlink_to(away)  # for the Plex that is started again
    plex.start()
    assert done.code == 12, done.text
    assert f"{library} (" in done.reason()
    assert "No such file or directory" in done.reason()
    not_moved(agent, moving, plex)


def test_replaced_under_a_snapshot(agent: Agent, library: Path, plex: PlexCommands) -> None:
    """A snapshot of a replaced library is neither served nor checked nor committed."""
    plex.stop()
    name = agent.scan().id
    agent.get(f"/v1/snapshots/{name}/frames/0.tar")
    replace(library)
    for method, path in (
        ("GET", f"/v1/snapshots/{name}"),
        ("GET", f"/v1/snapshots/{name}/frames/0.tar"),
        ("GET", f"/v1/snapshots/{name}/manifest"),
        ("GET", f"/v1/snapshots/{name}/SHA256SUMS"),
        ("GET", f"/v1/snapshots/{name}/archive.tar"),
        ("POST", f"/v1/snapshots/{name}/check"),
    ):
        with pytest.raises(AssertionError, match="no-such-snapshot"):
            agent.ask(method, path)
    assert agent.scan().id != name


def test_symlink_to_the_library_leads_elsewhere(
    agent: Agent, moving: Puller, plex: PlexCommands, library: Path
) -> None:
    """A snapshot of the symlink's earlier target fails the check and the commit."""
    plex.start()
    plex.stop()
    name = agent.scan().id
    real = library.with_name("old") / "Library"
    real.parent.mkdir()
    shutil.copytree(library, real, symlinks=True)
    library.rename(library.with_name("before"))
    library.symlink_to(real)
    with pytest.raises(AssertionError, match="no-such-snapshot"):
        agent.ask("POST", f"/v1/snapshots/{name}/check")
    plex.start()
    done = moving.pull()
    assert done.code == 0, done.text
    assert rsync_differences(real, moving.target / "Library") == []


def test_moved_to_another_path(
    agent: Agent, moving: Puller, plex: PlexCommands, library: Path, tmp_path: Path
) -> None:
    """A library at a new path is recognized by its Plex server, and the pull resumes."""
    larger = tmp_path / "larger" / "Library"
    larger.parent.mkdir()
    library.rename(larger)
    library.symlink_to(larger)  # for the stand-in, which has no other path
    agent.kill()
    agent.library = larger
    agent.start()
    plex.start()
    done = moving.pull()
    assert done.code == 0, done.text
    moved(agent, moving, plex, larger)


def test_library_of_another_server_at_another_path(
    agent: Agent, moving: Puller, library: Path, tmp_path: Path
) -> None:
    """The library of another server exits 14 and is not mixed with the volume's."""
    other = tmp_path / "other" / "Library"
    shutil.copytree(library, other, symlinks=True)
    preferences = other / SERVER / "Preferences.xml"
    text = preferences.read_text().replace(' MachineIdentifier="', ' MachineIdentifier="0')
    preferences.write_text(text)
    agent.kill()
    agent.library = other
    agent.start()
    done = moving.pull("--until", "ready")
    assert done.code == 14, done.text


def test_settings_name_another_library(
    new_agent: Callable[[Path], Agent], made: Path, tmp_path: Path
) -> None:
    """After SIGHUP, the next scan is of the library that the settings name now."""
    other = tmp_path / "other" / "Library"
    other.mkdir(parents=True)
    agent = new_agent(made)
    agent.settings, agent.tells_library = tmp_path / "agent.toml", False
    agent.settings.write_text(f'library = "{made}"')
    agent.pair()
    agent.start()
    before = agent.scan()
    agent.settings.write_text(f'library = "{other}"')
    os.kill(agent.pid, signal.SIGHUP)
    deadline = time.monotonic() + 10
    while "settings applied" not in agent.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    after = agent.scan()
    assert (before.library.path, after.library.path) == (str(made), str(other))
    assert after.entries == 1
    with pytest.raises(AssertionError, match="no-such-snapshot"):
        agent.ask("POST", f"/v1/snapshots/{before.id}/check")


@pytest.fixture
def disk(tmp_path: Path, made: Path) -> Iterator[Path]:
    """Return a library without Plex at the top of a disk, with another disk at ``more``."""
    with tmpfs(tmp_path / "vm" / "Photos") as disk:
        shutil.copytree(made, disk / "folder", symlinks=True)
        with tmpfs(disk / "more") as more:
            (more / "file").write_bytes(b"on the other disk")
            yield disk


@NEEDS_ROOT
@pytest.mark.parametrize("is_agent_restarted", [False, True])
def test_disk_is_not_mounted_any_more(
    disk: Path, target: Path, new_agent: Callable[[Path], Agent], *, is_agent_restarted: bool
) -> None:
    """An empty mount point does not replace the volume's content, and no disk stays busy."""
    agent = new_agent(disk)
    agent.pair()
    agent.start()
    assert pull(target, agent, "--until", "ready").code == 0
    unmount(disk / "more")
    done = pull(target, agent)
    assert done.code == 12, done.text
    assert "Photos/more (an empty folder" in done.reason()
    unmount(disk)
    if is_agent_restarted:
        agent.kill()
        agent.start()
    done = pull(target, agent)
    assert done.code == 12, done.text
    assert "Photos/ (an empty folder" in done.reason()
    assert not (target / "Photos").exists()
    agent.kill()


@NEEDS_ROOT
def test_disk_is_mounted_below_between_two_passes(
    disk: Path, target: Path, tmp_path: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """The current library arrives, without anything that the new disk hides."""
    agent = new_agent(disk)
    agent.pair()
    agent.start()
    assert pull(target, agent, "--until", "ready").code == 0
    with tmpfs(disk / "folder" / "Application Support") as new:
        (new / "file").write_bytes(b"on the new disk")
        done = pull(target, agent)
        assert done.code == 0, done.text
        assert rsync_differences(disk, target / "Photos") == []
        agent.kill()


def test_snapshot_of_an_earlier_version(
    new_agent: Callable[[Path], Agent], made: Path, target: Path
) -> None:
    """A snapshot without a record of its place is served, and no time in it is trusted."""
    agent = new_agent(made)
    agent.pair()
    agent.start()
    assert pull(target, agent, "--until", "ready").code == 0
    agent.kill()
    for origin in agent.state.glob("snapshots/*/origin.json"):
        origin.unlink()
    agent.start()
    [snapshot] = [path.name for path in agent.state.glob("snapshots/*")]
    agent.get(f"/v1/snapshots/{snapshot}/frames/0.tar")
    done = pull(target, agent)
    assert done.code == 0, done.text
    assert rsync_differences(made, target / "Library") == []


def test_id_of_a_library(made: Path, tmp_path: Path) -> None:
    """The id survives a move and a lost Preferences.xml, and differs for another server."""
    state = tmp_path / "state"
    state.mkdir()
    first, second = tmp_path / "first" / "Library", tmp_path / "second" / "Library"
    shutil.copytree(made, first, symlinks=True)
    known = library_id(str(first), str(state))
    assert known == library_id(str(first))
    second.parent.mkdir()
    first.rename(second)
    assert library_id(str(second), str(state)) == known
    (second / SERVER / "Preferences.xml").unlink()
    assert library_id(str(second), str(state)) == known
    first.mkdir()
    assert library_id(str(first / "Library"), str(state)) != known
    (state / "library.json").write_text("no JSON")
    assert library_id(str(second), str(state)) == library_id(str(second)) != known


@NEEDS_ROOT
def test_disk_is_mounted_below_during_the_scan(disk: Path, tmp_path: Path) -> None:
    """A scan during which a disk was mounted is repeated."""
    state = tmp_path / "state"
    store = SnapshotStore(str(state), CurrentLibrary(str(disk), str, str(state)))
    with ExitStack() as stack:

        def write_back_then_mount(path: str) -> frozenset[int]:
            found = write_back(path)
            stack.enter_context(tmpfs(disk / "folder" / "Application Support"))
            return found

        with (
            patch("agent.snapshots.store.write_back", write_back_then_mount),
            pytest.raises(SnapshotGone, match="another folder or disk"),
        ):
            store.scan(SnapshotRequest("cold"))
        assert [each.name for each in (state / "snapshots").iterdir()] == []
        assert store.scan(SnapshotRequest("cold")).kind == "cold"
