"""A library that has changed on the volume after its verification is never published so."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import dies, events, moved, phase
from rig.oracle import rsync_differences, sums_hold
from rig.state_results import away
from rig.volume import everything, pull

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller

pytestmark = pytest.mark.long

SETTINGS = {"lease_seconds": 600.0, "stop_seconds": 30}
BEFORE_COMMIT = ("initpuller.pull.cutover", "Cutover.commit")
BEFORE_RENAME = ("initpuller.volume.publish.publish", "publish")
BEFORE_RECEIPT = ("initpuller.volume.publish.publish", "seal")
WITHDRAWN = ("initpuller.pull.recipe", "_transfer_and_verify")
"""The first step after the record of the publication is withdrawn."""
ASIDE = ("--on-existing", "set-aside")


def content(target: Path) -> Path:
    """Return the library on the volume, wherever a killed run has left it."""
    staged = target / ".plexodus" / "staging" / "Library"
    return staged if staged.exists() else target / "Library"


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, and keep its times: no program has written it."""
    info, size = path.stat(), path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        byte = file.read(1)
        file.seek(size // 2)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def a_file(target: Path) -> None:
    """Change a small and a large file of the library."""
    files = sorted(
        (path for path in content(target).rglob("*") if path.is_file() and not path.is_symlink()),
        key=lambda path: path.stat().st_size,
    )
    flip(next(path for path in files if path.stat().st_size))
    flip(files[-1])


def lost_file(target: Path) -> None:
    """Lose a file."""
    next(content(target).rglob("Preferences.xml")).unlink()


def list_of_digests(target: Path) -> None:
    """Change the agent's list of digests, and a file with it."""
    ours = target / ".plexodus"
    flip(next(path for path in (*ours.glob("sums-*"), ours / "SHA256SUMS") if path.exists()))
    a_file(target)


def manifest(target: Path) -> None:
    """Change the manifest."""
    ours = target / ".plexodus"
    found = (*ours.glob("manifest-*"), ours / "manifest.jsonl.zst")
    flip(next(path for path in found if path.exists()))


def omitted(target: Path) -> None:
    """Lose the list of what was left out."""
    next((target / ".plexodus").glob("omitted-*")).unlink()


def attributes(target: Path) -> None:
    """Change what no digest shows: a mode, a link, a hard link, a name too many."""
    top = content(target)
    next(path for path in top.rglob("*.jpg") if path.is_file()).chmod(0o640)
    (top / "stranger").write_text("not from the VM")


_LONG = pytest.mark.long
DAMAGE = (
    a_file,
    attributes,
    *(pytest.param(each, marks=_LONG) for each in (lost_file, list_of_digests, manifest)),
)


@pytest.fixture
def stops(agent: Agent) -> Callable[[], int]:
    """Return a function that counts how often the agent has stopped Plex."""
    return lambda: events(agent).count("stop")


@pytest.mark.parametrize("damage", DAMAGE)
def test_volume_changed_after_the_commit(
    agent: Agent,
    puller: Puller,
    plex: PlexCommands,
    library: Path,
    stops: Callable[[], int],
    damage: Callable[[Path], None],
) -> None:
    """The next pull transfers what is damaged again. Plex stays stopped meanwhile."""
    dies(puller, *BEFORE_RENAME)
    damage(puller.target)
    assert stops() == 1

    done = puller.pull()

    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)
    assert stops() == 1


@pytest.mark.parametrize("option", [(), pytest.param(("--no-cutover",), marks=_LONG)])
def test_whole_staging_is_lost_after_the_commit(
    agent: Agent,
    puller: Puller,
    plex: PlexCommands,
    library: Path,
    stops: Callable[[], int],
    option: tuple[str, ...],
) -> None:
    """A volume that has lost everything gets it again, and Plex does not run meanwhile."""
    dies(puller, *BEFORE_RENAME)
    shutil.rmtree(puller.target / ".plexodus" / "staging")

    done = puller.pull(*option)

    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)
    assert stops() == 1


@_LONG
def test_volume_changed_before_the_commit(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A pull that was killed with its commit unsaid does not publish what changed since."""
    dies(puller, *BEFORE_COMMIT)
    a_file(puller.target)

    done = puller.pull()

    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)


def test_volume_that_cannot_be_read_before_the_commit(
    agent: Agent, puller: Puller, plex: PlexCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is committed for it: the agent starts Plex when the lease expires."""
    dies(puller, *BEFORE_COMMIT)

    def fail(*_: object) -> bytes:
        """Fail as a disk does."""
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr("initpuller.volume.publish.recheck.hash_descriptor", fail)
        refused = pull(puller.target, agent, PLEXODUS_NO_CUTOVER="0")

    assert refused.code == ExitCode.STORAGE, refused.text
    assert phase(agent) == "stopped"
    assert not plex.is_running()


@pytest.mark.parametrize("option", ["--rehearse", pytest.param("--until=ready", marks=_LONG)])
def test_committed_move_is_not_rehearsed_while_it_is_repaired(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path, option: str
) -> None:
    """A run that must not end the move leaves the record as it is; the next one repairs it."""
    dies(puller, *BEFORE_RENAME)
    a_file(puller.target)
    dies(puller, *WITHDRAWN)
    assert phase(agent) == "committed"

    refused = puller.pull(option)

    assert refused.code == ExitCode.CUTOVER, refused.text
    done = puller.pull()
    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)


def test_volume_changed_and_the_agent_is_away(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A user's word does not publish damage. A volume that is whole again is still published."""
    dies(puller, *BEFORE_RENAME)
    saved = puller.target.with_name("saved")
    shutil.copytree(content(puller.target), saved, symlinks=True)
    path = next(content(puller.target).rglob("Preferences.xml"))
    flip(path)

    with away(agent, is_away=True):
        refused = pull(puller.target, agent, "--no-cutover")
        assert refused.code == ExitCode.INTEGRITY, refused.text
        assert "Preferences.xml" in refused.text
        assert not (puller.target / "Library").exists()
        flip(path)
        done = pull(puller.target, agent, "--no-cutover")

    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)


@_LONG
@pytest.mark.parametrize("option", ["--no-cutover", "--rehearse"])
def test_volume_changed_without_a_cutover(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path, option: str
) -> None:
    """A rehearsal, or a move with Plex stopped by hand, does not arrive damaged either."""
    if option == "--no-cutover":
        plex.stop()
    dies(puller, *BEFORE_RENAME, option)
    a_file(puller.target)

    done = puller.pull(option)

    assert done.code == ExitCode.OK, done.text
    assert sums_hold(puller.target)
    if option == "--no-cutover":
        assert rsync_differences(library, puller.target / "Library") == []


@pytest.mark.parametrize("damage", [attributes, pytest.param(a_file, marks=_LONG)])
def test_library_with_its_final_name_is_not_what_was_verified(
    agent: Agent,
    puller: Puller,
    plex: PlexCommands,
    library: Path,
    damage: Callable[[Path], None],
) -> None:
    """It may be somebody's: nothing of it is changed. Set aside, it is transferred again."""
    dies(puller, *BEFORE_RECEIPT)
    damage(puller.target)
    before = everything(puller.target)

    refused = puller.pull()

    assert refused.code == ExitCode.CONFLICT, refused.text
    assert everything(puller.target) == before
    done = puller.pull(*ASIDE)
    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)
    assert len(list(puller.target.glob("Library.set-aside-*"))) == 1


@_LONG
def test_amended_preferences_are_no_damage(
    agent: Agent, puller: Puller, plex: PlexCommands, stops: Callable[[], int]
) -> None:
    """A file that the user wants otherwise is published, without another transfer."""
    option = ("--set-preference", "FriendlyName=Moved")
    dies(puller, *BEFORE_RENAME, *option)
    asked = len(agent.frames_asked())

    done = puller.pull(*option)

    assert done.code == ExitCode.OK, done.text
    assert len(agent.frames_asked()) == asked
    assert stops() == 1
    assert not plex.is_running()
