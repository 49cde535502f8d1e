"""Damage to the volume between two runs is found, and only the damaged part is fetched again."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences, sums_hold
from rig.programs import Agent, running
from rig.volume import RECEIPT_FILES, cut_at, grow_tiny, left_of_pull, pull

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FINISH = "initpuller.volume.staging.staging.Staging.finish"
PREPARE = "initpuller.volume.publish.publish.prepare"
WARNING = "files on the volume are not what was read"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Start one agent with a tiny library for all tests."""
    place = tmp_path_factory.mktemp("damage")
    agent = Agent(place / "state", grow_tiny(place / "vm" / "Library"), place / "agent.log")
    agent.pair()
    with running(agent):
        yield agent


def _is_whole(target: Path, agent: Agent) -> None:
    assert rsync_differences(agent.library, target / "Library") == []
    assert sums_hold(target)
    assert left_of_pull(target) == RECEIPT_FILES


def _flip(path: Path) -> None:
    """Flip one bit without changing the times."""
    info = path.stat()
    with path.open("r+b") as file:
        file.seek(info.st_size // 2)
        byte = file.read(1)[0]
        file.seek(info.st_size // 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def _cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _remove(path: Path) -> None:
    path.unlink()


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _make_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("when", [FINISH, PREPARE])
@pytest.mark.parametrize("name", ["Plex/Metadata/large", "Plex/Metadata/poster"])
@pytest.mark.parametrize("damage", [_flip, _cut_short, _remove, _make_folder, _make_symlink])
def test_file_in_staging_damaged_between_two_runs(
    target: Path, agent: Agent, damage: Callable[[Path], None], name: str, when: str
) -> None:
    """A damaged file is found before publication and fetched again, also if it is hard-linked."""
    with cut_at(when):
        pull(target, agent)
    damage(target / ".plexodus" / "staging" / "Library" / name)
    asked = len(agent.frames_asked())

    done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    assert WARNING in done.text
    assert 1 <= len(agent.frames_asked()) - asked <= 2
    _is_whole(target, agent)


def test_folder_in_staging_lost_between_two_runs(target: Path, agent: Agent) -> None:
    """The content of a lost folder is fetched again."""
    with cut_at(FINISH):
        pull(target, agent)
    shutil.rmtree(target / ".plexodus" / "staging" / "Library" / "Plex")

    done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    assert WARNING in done.text
    _is_whole(target, agent)


def test_strangers_in_staging_hold_up_one_run(target: Path, agent: Agent) -> None:
    """An extra file and a changed mode are refused by name, and the next run repairs them."""
    with cut_at(FINISH):
        pull(target, agent)
    staged = target / ".plexodus" / "staging" / "Library"
    (staged / "stranger").write_bytes(b"not of the library")

    refused = pull(target, agent)

    assert refused.code == ExitCode.INTEGRITY
    assert "stranger: does not belong here" in refused.text
    assert not (target / "Library").exists()
    (staged / "Plex" / "Metadata" / "poster").chmod(0o777)
    done = pull(target, agent)
    assert done.code == ExitCode.OK, done.text
    _is_whole(target, agent)


def _record(target: Path, kind: str) -> Path:
    (found,) = (target / ".plexodus").glob(f"{kind}-*")
    return found


@pytest.mark.parametrize("damage", [_flip, _cut_short, _remove])
def test_manifest_damaged_between_two_runs(
    target: Path, agent: Agent, damage: Callable[[Path], None]
) -> None:
    """A damaged manifest is fetched again once, and no frame is."""
    with cut_at(FINISH):
        pull(target, agent)
    damage(_record(target, "manifest"))
    requests, asked = len(agent.requests()), agent.frames_asked()

    done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    again = [request for request in agent.requests()[requests:] if request.endswith("/manifest")]
    assert len(again) == 1
    assert agent.frames_asked() == asked
    _is_whole(target, agent)


@pytest.mark.parametrize("damage", [_flip, _cut_short, _remove])
def test_digests_damaged_between_two_runs(
    target: Path, agent: Agent, damage: Callable[[Path], None]
) -> None:
    """Damaged digests are computed again from the files, and no frame is fetched."""
    with cut_at(PREPARE):
        pull(target, agent)
    damage(_record(target, "digests"))
    asked = agent.frames_asked()

    done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    assert agent.frames_asked() == asked
    _is_whole(target, agent)


@pytest.mark.parametrize(("damage", "most"), [(_flip, 4), (_cut_short, 4), (_remove, 4)])
def test_journal_damaged_between_two_runs(
    target: Path, agent: Agent, damage: Callable[[Path], None], most: int
) -> None:
    """Frames that a damaged journal no longer lists are fetched again, and at most all of them."""
    with cut_at(FINISH):
        pull(target, agent)
    damage(_record(target, "journal"))
    asked = len(agent.frames_asked())

    done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    assert len(agent.frames_asked()) - asked <= most
    _is_whole(target, agent)


def test_volume_cannot_be_written(target: Path, agent: Agent) -> None:
    """A file in place of the puller's own folder exits 15 without a request."""
    (target / ".plexodus").write_text("in the way")
    requests = agent.requests()

    done = pull(target, agent)

    assert done.code == ExitCode.STORAGE, done.text
    assert agent.requests() == requests
    assert [path.name for path in target.iterdir()] == [".plexodus"]
