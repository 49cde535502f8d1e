"""The move is undone after its commit, while the library is about to get its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import moved
from rig.paused_pull import paused_pull
from rig.programs import program

if TYPE_CHECKING:
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller


pytestmark = pytest.mark.long


def test_undone_while_the_puller_is_frozen_or_its_volume_slow(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """The old answer permits nothing: what Plex has written since moves with another stop."""
    with paused_pull(puller, "initpuller.volume.publish.publish", "displace") as process:
        undo = ("undo", "--state", agent.state, "--config", agent.settings or "")
        assert program("plexodus-agent", *undo).returncode == 0  # it has seen Plex run for 3 s
        assert plex.is_running()
    done = puller.finished(process)
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)
    assert plex.story.count("stop") == 2
