"""A person has stopped Plex for ``--no-cutover``, and the agent has a cutover under way, or done.

It may start Plex beside the published library, or the library has moved to another volume.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import dies, moved
from rig.oracle import rsync_differences
from rig.paused_pull import STANDING, paused_pull
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Finished, Puller

pytestmark = pytest.mark.long

SETTINGS = {"lease_seconds": 60.0, "stop_seconds": 30}


@pytest.fixture
def person(puller: Puller) -> Puller:
    """The puller of somebody who has stopped Plex."""
    return replace(puller, cutover=False, log=puller.log.with_name("person.log"))


def stopped(puller: Puller, plex: PlexCommands) -> Iterator[int]:
    """Yield the id of a puller for which Plex is stopped, and which is frozen."""
    process = puller.begin()
    wait_until(lambda: "stop" in plex.story and not plex.is_running(), meanwhile=process)
    os.kill(process.pid, signal.SIGSTOP)
    yield process.pid
    process.kill()
    process.wait()


def test_plex_is_stopped_for_a_run_that_was_killed(
    agent: Agent, puller: Puller, person: Puller, plex: PlexCommands, library: Path
) -> None:
    """The lease would expire after the pull, and Plex start beside the published library."""
    for _ in stopped(puller, plex):
        pass
    assert not plex.is_running()
    refused = person.pull()
    assert refused.code == 16, refused.text
    assert not (person.target / "Library").exists()
    assert plex.is_running()
    plex.stop()
    done = person.pull()
    assert done.code == 0, done.text
    assert rsync_differences(library, person.target / "Library") == []
    assert not plex.is_running()


def test_plex_is_stopped_for_another_volume(
    agent: Agent, puller: Puller, person: Puller, plex: PlexCommands, tmp_path: Path
) -> None:
    """That move may fail, and the agent then starts Plex."""
    target = tmp_path / "other"
    target.mkdir()
    other = replace(person, target=target)
    for _ in stopped(puller, plex):
        refused = other.pull()
        assert refused.code == 17, refused.text
        assert "plexodus-agent status" in refused.reason()
        assert not (target / "Library").exists()
    plex.wait_until(running=False)


@pytest.fixture
def elsewhere(person: Puller, tmp_path: Path) -> Puller:
    """The puller of that person, onto a volume of its own."""
    (tmp_path / "other").mkdir()
    return replace(person, target=tmp_path / "other")


def is_refused(elsewhere: Puller, ended: Finished) -> None:
    """Assert that there is no second copy, and that the message says why."""
    assert ended.code == 17, ended.text
    assert "has moved meanwhile" in ended.reason()
    assert not (elsewhere.target / "Library").exists()


@pytest.mark.parametrize("call", [2, 3], ids=["before the last check", "after it"])
def test_library_moves_to_another_volume_meanwhile(
    agent: Agent, puller: Puller, elsewhere: Puller, plex: PlexCommands, library: Path, call: int
) -> None:
    """Two servers with one identity would run: nothing has changed but the place of the library."""
    plex.stop()
    with paused_pull(elsewhere, *STANDING, call=call) as process:
        done = puller.pull()
        assert done.code == 0, done.text
    is_refused(elsewhere, elsewhere.finished(process))
    moved(agent, puller, plex, library)


@pytest.mark.parametrize(
    "step",
    [
        ("initpuller.pull.transfer", "Assembly.run"),
        ("initpuller.volume.publish.publish", "publish"),
        ("initpuller.volume.publish.publish", "seal"),
    ],
    ids=["transfer", "rename", "receipt"],
)
def test_library_moves_to_another_volume_after_a_kill(
    agent: Agent,
    puller: Puller,
    elsewhere: Puller,
    plex: PlexCommands,
    library: Path,
    step: tuple[str, str],
) -> None:
    """The pod of the first pull starts again, days later; its record shows when it began."""
    plex.stop()
    dies(elsewhere, *step)
    done = puller.pull()
    assert done.code == 0, done.text
    refused = elsewhere.pull()
    assert refused.code == 17, refused.text
    assert "has moved meanwhile" in refused.reason()
    assert not (elsewhere.target / ".plexodus" / "receipt.json").exists()
    moved(agent, puller, plex, library)


def test_second_copy_that_is_wanted(
    agent: Agent, puller: Puller, elsewhere: Puller, plex: PlexCommands, library: Path
) -> None:
    """After a move, a pull that begins gets a copy; a resumed one after the hint's remedy."""
    assert puller.pull().code == 0
    dies(elsewhere, "initpuller.volume.publish.publish", "publish")
    is_refused(elsewhere, elsewhere.pull())
    (elsewhere.target / ".plexodus" / "state.json").unlink()
    done = elsewhere.pull()
    assert done.code == 0, done.text
    assert rsync_differences(library, elsewhere.target / "Library") == []
    assert not plex.is_running()
