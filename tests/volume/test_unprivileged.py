"""A puller without privileges owns every entry, and all else is as in the source."""

from __future__ import annotations

import os
import random
import signal
import stat
from typing import TYPE_CHECKING

import pytest
from rig import odd_tree
from rig.oracle import rsync_differences, sums_hold
from rig.programs import Agent, running
from rig.unprivileged import GROUP, USER, UnprivilegedPuller, open_place
from rig.waiting import wait_until

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FRAME = 4 * 1024 * 1024

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="the source has files that only root can make and read"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder that the puller can reach."""
    with open_place() as path:
        yield path


def _puller(place: Path, agent: Agent) -> UnprivilegedPuller:
    """Return a puller on a volume of another group with setgid, as fsGroup prepares it."""
    target = place / "config"
    target.mkdir()
    os.chown(target, USER, 4242)
    target.chmod(0o2775)
    return UnprivilegedPuller(target, place / "puller.log", agent.pairing)


def _agent(place: Path, library: Path) -> Agent:
    agent = Agent(place / "state", library, place / "agent.log")
    agent.pair()
    return agent


def _plain_tree(library: Path) -> None:
    """Make large and small, closed and open files, sorted so that the vast file is the last."""
    content = random.Random(3)  # noqa: S311 - the same tree each time
    for mode in (0o000, 0o555, 0o755):
        folder = library / f"folder {mode:o}"
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(content.randbytes(5000))
        (folder / "file").chmod(mode)
        os.setxattr(folder, "user.kept", b"yes")
        folder.chmod(mode)
    large = library / "large"
    large.write_bytes(content.randbytes(FRAME + 1))
    os.setxattr(large, "user.kept", b"yes")
    large.chmod(0o444)
    (library / "link").symlink_to("folder 0/file")
    (library / "also large").hardlink_to(large)
    with (library / "vast").open("wb") as file:
        file.truncate(20 * FRAME)


def _is_all_ours(library: Path) -> bool:
    owners = {(info.st_uid, info.st_gid) for info in odd_tree.everything(library).values()}
    return owners == {(USER, GROUP)}


def test_every_oddity_arrives_with_the_runners_ownership(place: Path) -> None:
    """Modes, times, links and xattrs are as in the source, and the owner is the runner.

    Afterwards `status` and a second run find that everything is there.
    """
    library = place / "vm" / "Library"
    odd_tree.grow(library)
    with running(_agent(place, library)) as agent:
        puller = _puller(place, agent)
        done = puller.pull()
        assert done.code == ExitCode.OK, done.text
        before = agent.requests()
        assert puller.pull().code == ExitCode.OK
        assert agent.requests() == before
    odd_tree.remove_specials(library)

    arrived = puller.target / "Library"
    assert _is_all_ours(arrived)
    assert rsync_differences(library, arrived, owner=False) == []
    theirs = odd_tree.everything(library)
    for path, info in odd_tree.everything(arrived).items():
        assert (info.st_mode, info.st_mtime_ns) == (theirs[path].st_mode, theirs[path].st_mtime_ns)
    assert sums_hold(puller.target)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_half_way_and_gone_on_with(place: Path, number: signal.Signals) -> None:
    """Entries that an earlier run made read-only or closed do not block the next run."""
    library = place / "vm" / "Library"
    _plain_tree(library)
    with running(_agent(place, library)) as agent:
        puller = _puller(place, agent)
        started = puller.begin("--jobs", "1")
        staged = puller.target / ".plexodus" / "staging" / "Library"
        wait_until((staged / "vast").exists, meanwhile=started)
        started.send_signal(number)
        code = started.wait(timeout=30)
        assert code == (-number if number is signal.SIGKILL else ExitCode.INTERRUPTED)
        assert not (puller.target / "Library").exists()

        done = puller.pull()

    assert done.code == ExitCode.OK, done.text
    assert rsync_differences(library, puller.target / "Library", owner=False) == []
    assert _is_all_ours(puller.target / "Library")


def test_closed_files_are_compared_again_before_publication(place: Path) -> None:
    """A verified tree with files that nobody may read is published by the next run, as it is."""
    library = place / "vm" / "Library"
    _plain_tree(library)
    with running(_agent(place, library)) as agent:
        puller = _puller(place, agent)
        started = puller.begin("--jobs", "1")
        staged = puller.target / ".plexodus" / "staging" / "Library"
        wait_until((staged / "vast").exists, meanwhile=started)
        puller.target.chmod(0o555)
        assert started.wait(timeout=60) == ExitCode.STORAGE
        assert '"publishing"' in (puller.target / ".plexodus" / "state.json").read_text()
        puller.target.chmod(0o2775)
        asked = len(agent.frames_asked())

        done = puller.pull()

        assert done.code == ExitCode.OK, done.text
        assert len(agent.frames_asked()) == asked
    assert rsync_differences(library, puller.target / "Library", owner=False) == []
    assert _is_all_ours(puller.target / "Library")


@pytest.mark.parametrize("library_mode", [0o755, 0o555])
def test_finished_tree_is_taken_over_by_the_next_run(place: Path, library_mode: int) -> None:
    """Closed files and folders of a fully assembled tree are reopened if the source changed.

    The second run meets a read-only large file with xattrs, closed folders, a folder whose xattr
    is gone and one that is gone itself.
    """
    library = place / "vm" / "Library"
    _plain_tree(library)
    library.chmod(library_mode)
    with running(_agent(place, library)) as agent:
        puller = _puller(place, agent)
        started = puller.begin()
        staged = puller.target / ".plexodus" / "staging" / "Library"
        wait_until((staged / "vast").exists, meanwhile=started)
        (library / "late").write_bytes(b"written meanwhile")
        changed = puller.finished(started)
        assert changed.code == ExitCode.SOURCE_CHANGED, changed.text
        assert "Library" in changed.reason()
        assert stat.S_IMODE((staged / "large").stat().st_mode) == 0o444  # it was finished
        os.removexattr(library / "folder 755", "user.kept")
        (library / "folder 555" / "file").unlink()
        (library / "folder 555").rmdir()
        (staged / "folder 555").chmod(0)  # as a kill while folders are closed leaves it
        asked = len(agent.frames_asked())

        done = puller.pull()

        assert done.code == ExitCode.OK, done.text
        assert len(agent.frames_asked()) - asked == 1  # the frame with the late file
    assert rsync_differences(library, puller.target / "Library", owner=False) == []


def test_owner_other_than_the_runner_is_refused_up_front(place: Path) -> None:
    """`--owner 0:0` and `keep` exit 2 before the agent is asked or the volume touched."""
    library = place / "vm" / "Library"
    library.mkdir(parents=True)
    (library / "file").touch()
    with running(_agent(place, library)) as agent:
        puller = _puller(place, agent)
        for owner in ("0:0", f"{USER}:{GROUP + 1}", "keep"):
            done = puller.pull("--owner", owner)
            assert done.code == ExitCode.CONFIGURATION
            assert owner in done.reason()
        assert agent.requests() == []
        assert os.listdir(puller.target) == []

        assert puller.pull("--owner", f"{USER}:{GROUP}").code == ExitCode.OK
