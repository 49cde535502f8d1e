"""A person has stopped Plex, and the agent is about to start it: that is no ``--no-cutover``."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller

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
