"""A library that has changed on the volume after its verification is never published so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import dies, moved, phase
from rig.oracle import rsync_differences, sums_hold
from rig.state_results import away
from rig.volume import pull

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller

SETTINGS = {"lease_seconds": 600.0, "stop_seconds": 30}
STEPS = {
    "before the rename": ("initpuller.volume.publish.publish", "publish"),
    "before the receipt": ("initpuller.volume.publish.publish", "seal"),
}
BEFORE_COMMIT = ("initpuller.pull.cutover", "Cutover.commit")
FORGOTTEN = ("initpuller.pull.recipe", "_transfer_and_verify")
"""The first step after the record of the publication is withdrawn."""


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


DAMAGE = (a_file, lost_file, list_of_digests, manifest)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda each: each.__name__)
@pytest.mark.parametrize("step", STEPS)
def test_volume_changed_after_the_commit(
    agent: Agent,
    puller: Puller,
    plex: PlexCommands,
    library: Path,
    step: str,
    damage: Callable[[Path], None],
) -> None:
    """The next pull transfers what is damaged again. Plex stays stopped meanwhile."""
    dies(puller, *STEPS[step])
    stops = agent.log.read_text().count("Plex is stopped")
    damage(puller.target)

    done = puller.pull()

    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)
    assert agent.log.read_text().count("Plex is stopped") == stops


def test_volume_changed_before_the_commit(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A pull that was killed with its commit unsaid does not publish what changed since."""
    dies(puller, *BEFORE_COMMIT)
    a_file(puller.target)

    done = puller.pull()

    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)


def test_killed_again_while_it_is_repaired(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A run that is killed after it found the damage does not leave a volume that none can use."""
    dies(puller, *STEPS["before the rename"])
    a_file(puller.target)
    dies(puller, *FORGOTTEN)
    assert phase(agent) == "committed"

    done = puller.pull()

    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)


def test_volume_changed_and_the_agent_is_away(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A user's word that Plex is down does not publish damage. The agent's return does help."""
    dies(puller, *STEPS["before the rename"])
    a_file(puller.target)

    with away(agent, is_away=True):
        refused = pull(puller.target, agent, "--no-cutover")

    assert refused.code == ExitCode.UNREACHABLE, refused.text
    assert not (puller.target / "Library").exists()
    done = puller.pull()
    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("option", ["--no-cutover", "--rehearse"])
def test_volume_changed_without_a_cutover(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path, option: str, step: str
) -> None:
    """A rehearsal, or a move with Plex stopped by hand, does not arrive damaged either."""
    if option == "--no-cutover":
        plex.stop()
    dies(puller, *STEPS[step], option)
    a_file(puller.target)

    done = puller.pull(option)

    assert done.code == ExitCode.OK, done.text
    assert sums_hold(puller.target)
    if option == "--no-cutover":
        assert rsync_differences(library, puller.target / "Library") == []
