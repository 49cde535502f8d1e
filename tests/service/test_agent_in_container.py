"""The agent as a container: the documented examples leave it the time to start Plex at its end."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from agent import daemon
from agent.app import SHUTDOWN

REPOSITORY = Path(__file__).parents[2]
PLATFORMS = REPOSITORY / "docs" / "platforms"
NEEDED = daemon._LEAVE + SHUTDOWN
"""Seconds that an agent may take to end if Plex is being stopped."""


def test_compose_file_leaves_time_to_start_plex() -> None:
    """An agent that is stopped during Plex's stop is not killed before it has started Plex."""
    services = yaml.safe_load((PLATFORMS / "compose.yaml").read_text())["services"]
    grace = services["plexodus-agent"]["stop_grace_period"]
    assert re.fullmatch(r"\d+s", grace)
    assert int(grace[:-1]) > NEEDED


def test_commands_leave_time_to_start_plex() -> None:
    """The option for an agent without Compose is as long."""
    options = re.findall(r"--stop-timeout (\d+)", (PLATFORMS / "docker.md").read_text())
    assert options
    assert min(map(int, options)) > NEEDED


def test_unit_leaves_time_to_start_plex() -> None:
    """The unit gives the agent that time, too."""
    unit = (REPOSITORY / "agent" / "systemd" / "plexodus-agent.service").read_text()
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(seconds) > NEEDED
