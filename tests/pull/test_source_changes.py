"""The library changes during a move or between two runs, or becomes unreadable."""

from __future__ import annotations

import os
import random
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences, sums_hold
from rig.programs import Agent, Puller, running
from rig.unprivileged import UnprivilegedAgent, open_place
from rig.waiting import wait_until

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.programs import Finished

FRAME = 4 * 1024 * 1024
VAST = 10
"""Frames of the file in the middle: while they come, there is time to do damage."""


class Moving:
    """A served library that is damaged during a pull.

    In order: small files (frame 0), ``m-vast`` (its frames), small files (the last frame).
    """

    def __init__(self, place: Path, library: Path, agent: Agent) -> None:
        self.place = place
        self.library = library
        self.agent = agent

    def renew(self) -> None:
        """Create the library again, because other tests must not see the changes of one."""
        shutil.rmtree(self.library, ignore_errors=True)
        content = random.Random(11)  # noqa: S311 - the same tree each time
        for folder in ("a-first", "z-last"):
            (self.library / folder / "below").mkdir(parents=True)
            for number in range(20):
                file = self.library / folder / "below" / f"{number:02}"
                file.write_bytes(content.randbytes(3000))
            (self.library / folder / "victim").write_bytes(content.randbytes(5000))
            (self.library / folder / "link").symlink_to("victim")
        with (self.library / "m-vast").open("wb") as file_with_hole:
            file_with_hole.truncate(VAST * FRAME)

    def puller(self, target: Path) -> Puller:
        """Return a puller for ``target``."""
        return Puller(target, target.parent / "puller.log", self.agent.pairing)

    def pull_and_meanwhile(self, puller: Puller, damage: Callable[[], None]) -> Finished:
        """Hold a run between its first and last frame while ``damage`` is done."""
        asked = len(self.agent.frames_asked())
        process = puller.begin("--jobs", "1")
        wait_until(lambda: self.agent.frames_asked()[asked:], meanwhile=process)
        process.send_signal(signal.SIGSTOP)
        damage()
        assert VAST + 1 not in self.agent.frames_asked()[asked:]
        process.send_signal(signal.SIGCONT)
        return puller.finished(process)


@pytest.fixture(scope="module")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moving]:
    place = tmp_path_factory.mktemp("moving")
    library = place / "vm" / "Library"
    library.mkdir(parents=True)
    agent = Agent(place / "state", library, place / "agent.log")
    agent.pair()
    with running(agent):
        yield Moving(place, library, agent)


@pytest.fixture
def moving(_served: Moving) -> Moving:
    """Return one agent for all tests, with a new library for each."""
    _served.renew()
    return _served


def _modify(victim: Path) -> None:
    """Change content with the same size and mtime, so that only the ctime differs."""
    info = victim.stat()
    victim.write_bytes(b"x" * info.st_size)
    os.utime(victim, ns=(info.st_atime_ns, info.st_mtime_ns))


def _truncate(victim: Path) -> None:
    os.truncate(victim, 100)


def _replace(victim: Path) -> None:
    """Replace a file by another of the same content, as editors do."""
    copy = victim.with_name("copy")
    shutil.copy2(victim, copy)
    copy.rename(victim)


def _remove(victim: Path) -> None:
    victim.unlink()


def _chmod(victim: Path) -> None:
    victim.chmod(0o640)


def _become_symlink(victim: Path) -> None:
    victim.unlink()
    victim.symlink_to("/etc/hostname")


def _become_fifo(victim: Path) -> None:
    """Replace a file by a FIFO without a writer, where opening it for reading would hang."""
    victim.unlink()
    os.mkfifo(victim)


@pytest.mark.parametrize(
    "damage", [_modify, _truncate, _replace, _remove, _chmod, _become_symlink, _become_fifo]
)
def test_file_changed_before_its_frame_is_made(
    moving: Moving, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    """Such a change exits 16 with the path and publishes nothing, and the next run completes."""
    target = tmp_path / "config"
    target.mkdir()
    puller = moving.puller(target)

    changed = moving.pull_and_meanwhile(puller, lambda: damage(moving.library / "z-last/victim"))

    assert changed.code == ExitCode.SOURCE_CHANGED, changed.text
    assert "Library/z-last/victim" in changed.reason()
    assert os.listdir(target) == [".plexodus"]
    asked = len(moving.agent.frames_asked())
    done = puller.pull()
    assert done.code == ExitCode.OK, done.text
    assert moving.agent.frames_asked()[asked:] == [VAST + 1]
    if damage is _become_fifo:
        (moving.library / "z-last/victim").unlink()
        shutil.copystat(target / "Library/z-last", moving.library / "z-last")
    assert rsync_differences(moving.library, target / "Library") == []


def _add(victim: Path) -> None:
    victim.with_name("added").write_bytes(b"new")


@pytest.mark.parametrize(
    ("damage", "named", "again"),
    [
        (_modify, "a-first/victim", [0]),
        (_remove, "a-first", []),
        (_chmod, "a-first/victim", [0]),
        (_add, "a-first", [0]),
    ],
)
def test_file_changed_after_its_frame_was_sent(
    moving: Moving,
    damage: Callable[[Path], None],
    named: str,
    again: list[int],
    tmp_path: Path,
) -> None:
    """The change is found before publication, and the next run fetches the changed file."""
    target = tmp_path / "config"
    target.mkdir()
    puller = moving.puller(target)

    changed = moving.pull_and_meanwhile(puller, lambda: damage(moving.library / "a-first/victim"))

    assert changed.code == ExitCode.SOURCE_CHANGED, changed.text
    assert f"Library/{named}" in changed.reason()
    assert os.listdir(target) == [".plexodus"]
    asked = len(moving.agent.frames_asked())
    done = puller.pull()
    assert done.code == ExitCode.OK, done.text
    assert moving.agent.frames_asked()[asked:] == again
    assert rsync_differences(moving.library, target / "Library") == []
    assert sums_hold(target)


def test_library_rebuilt_between_two_runs(moving: Moving, tmp_path: Path) -> None:
    """After renames, retyped entries and changed links, the second run restores the exact tree.

    The first had assembled the whole tree, links included, before it found the change.
    """
    library, target = moving.library, tmp_path / "config"
    target.mkdir()
    puller = moving.puller(target)
    for name in ("file-folder", "file-link", "file-hard", "hard-own"):
        (library / name).write_bytes(name.encode())
    for name in ("folder-file", "folder-link", "folder-gone"):
        (library / name / "below" / "deeper").mkdir(parents=True)
        (library / name / "below" / "file").write_bytes(b"x")
    for name in ("link-file", "link-folder", "link-link"):
        (library / name).symlink_to("a-first")
    (library / "hard-one").hardlink_to(library / "hard-own")
    os.setxattr(library / "a-first", "user.old", b"1")
    os.setxattr(library / "a-first" / "below", "user.changed", b"1")

    assert moving.pull_and_meanwhile(puller, lambda: _add(library / "z-last/victim")).code == (
        ExitCode.SOURCE_CHANGED
    )
    assert (target / ".plexodus/staging/Library/link-link").is_symlink()

    (library / "m-vast").rename(library / "b-vast")
    for name in ("file-folder", "link-folder"):
        (library / name).unlink()
        (library / name).mkdir()
        (library / name / "new").write_bytes(b"new")
    for name in ("folder-file", "folder-link", "folder-gone"):
        shutil.rmtree(library / name)
    for name in ("file-link", "folder-link", "link-link"):
        (library / name).unlink(missing_ok=True)
        (library / name).symlink_to("z-last/victim")
    for name in ("folder-file", "link-file"):
        (library / name).unlink(missing_ok=True)
        (library / name).write_bytes(b"a file now")
    (library / "file-hard").unlink()
    (library / "file-hard").hardlink_to(library / "a-first" / "victim")
    (library / "hard-own").unlink()
    (library / "hard-own").write_bytes(b"on its own")
    (library / "z-last" / "below").rename(library / "a-first" / "moved")
    os.removexattr(library / "a-first", "user.old")
    os.setxattr(library / "a-first" / "below", "user.changed", b"2")

    done = puller.pull()

    assert done.code == ExitCode.OK, done.text
    assert rsync_differences(library, target / "Library") == []
    assert sums_hold(target)
    assert puller.run("verify").returncode == ExitCode.OK


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user's")
def test_file_closed_to_the_agent_while_it_is_moved() -> None:
    """A file that becomes unreadable after the scan is refused with its path, never left out."""
    with open_place() as place:
        library = place / "vm" / "Library"
        library.mkdir(parents=True)
        agent = UnprivilegedAgent(place / "state", library, place / "agent.log")
        agent.pair()
        target = place / "config"
        target.mkdir()
        moving = Moving(place, library, agent)
        moving.renew()
        library.chmod(0o755)
        victim = library / "z-last" / "victim"
        with running(agent):
            changed = moving.pull_and_meanwhile(moving.puller(target), lambda: victim.chmod(0))

        assert changed.code == ExitCode.PREFLIGHT, changed.text
        assert "Library/z-last/victim" in changed.reason()
        assert os.listdir(target) == [".plexodus"]
