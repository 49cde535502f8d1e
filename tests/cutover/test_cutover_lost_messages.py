"""Messages of the programs are lost while Plex is stopped: still, exactly one server runs."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from rig.cutover.cutovers import moved, not_moved

if TYPE_CHECKING:
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller

SETTINGS = {"stop_seconds": 5}


def test_reader_of_the_log_ends_while_plex_is_stopped(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """Neither the line about the commit nor the one about the publication ends the move."""
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        puller.command(), stdout=theirs, stderr=theirs, env=puller.environment()
    )
    os.close(theirs)
    plex.wait_until(running=False)
    os.close(ours)
    assert process.wait(timeout=60) == 0
    moved(agent, puller, plex, library)


def test_agent_that_ends_without_a_log_while_plex_is_stopped(
    agent: Agent, puller: Puller, plex: PlexCommands
) -> None:
    """The disk of its log is full: it still starts Plex, and its exit code is 0."""
    agent.stop()
    agent.before = ("sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    agent.start()
    process = puller.begin()
    plex.wait_until(running=False)
    process.kill()
    process.wait()
    assert agent.stop() == 0
    assert plex.is_running()
    agent.start()
    not_moved(agent, puller, plex)
