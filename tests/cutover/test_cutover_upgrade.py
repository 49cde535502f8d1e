"""A library that an earlier release has moved stays moved when the agent is upgraded."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import phase
from rig.programs import program
from rig.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent

pytestmark = pytest.mark.long

SETTINGS = {"lease_seconds": 600.0, "stop_seconds": 30}
NAME, SNAPSHOT = "a" * 32, "b" * 64


def moved_by_an_earlier_release(agent: Agent, plex: PlexCommands) -> None:
    """Leave that release's files: a record without serial number and a fence, without copies."""
    agent.kill()
    plex.stop()
    shutil.rmtree(witness(agent), ignore_errors=True)
    record = {
        "phase": "committed",
        "id": NAME,
        "puller": "pod",
        "since": "2026-11-01T12:00:00+00:00",
        "was_running": True,
        "starting": [str(plex.here / "start")],
        "run": "",
        "granted": 10.0,
        "until": 70.0,
        "snapshot": SNAPSHOT,
        "why": "",
    }
    (agent.state / "cutover.json").write_text(json.dumps(record))
    (agent.state / "fence").write_text("Moved to pod. The way back: plexodus-agent undo\n")


def witness(agent: Agent) -> Path:
    """Return the folder with the second copy."""
    return agent.state.with_name(f"{agent.state.name}-witness")


def is_witnessed(agent: Agent) -> bool:
    """Return whether record and fence have a copy in the second folder."""
    return {"cutover.json", "fence"} <= {path.name for path in witness(agent).glob("*")}


def test_agent_is_upgraded_after_the_move(agent: Agent, plex: PlexCommands) -> None:
    """The move stays committed, Plex stays down, and record and fence get a second copy."""
    moved_by_an_earlier_release(agent, plex)
    plex.start()
    agent.start()
    plex.wait_until(running=False)
    wait_until(lambda: is_witnessed(agent))
    standing = json.loads(agent.get("/v1/cutover"))
    assert standing["phase"] == "committed"
    assert standing["snapshot"] == SNAPSHOT
    assert standing["since"] == "2026-11-01T12:00:00+00:00"
    assert (agent.state / "fence").exists()
    options = ("--state", agent.state, "--config", agent.settings or "")
    assert program("plexodus-agent", "undo", *options).returncode == 0
    assert plex.is_running()
    assert not (witness(agent) / "fence").exists()


def test_state_folder_restored_after_an_upgrade(
    agent: Agent, plex: PlexCommands, tmp_path: Path
) -> None:
    """A backup from before the move does not start Plex, because of the second copy."""
    shutil.copytree(agent.state, tmp_path / "backup")
    moved_by_an_earlier_release(agent, plex)
    agent.start()
    wait_until(lambda: is_witnessed(agent))
    agent.kill()
    shutil.rmtree(agent.state)
    shutil.copytree(tmp_path / "backup", agent.state)
    plex.start()
    agent.start()
    assert phase(agent) == "committed"
    plex.wait_until(running=False)
    wait_until((agent.state / "fence").exists)
