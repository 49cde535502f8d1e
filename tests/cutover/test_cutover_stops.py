"""Plex is stopped, and started again, whatever becomes of the agent, its disk and its commands."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from rig.cutover.cutovers import dies
from rig.plex.commands import PlexCommands, only_plex
from rig.programs import Agent, Puller, program
from rig.waiting import wait_until

from agent.cutover import record
from agent.cutover.context import CutoverContext, CutoverLimits
from agent.cutover.control import CutoverControl
from agent.plex.service import Commands, Sight
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

SETTINGS = {"lease_seconds": 5.0, "stop_seconds": 30}


def test_agent_told_to_end_while_plex_stops(
    agent: Agent, puller: Puller, plex: PlexCommands
) -> None:
    """The stop goes on, since nobody can end it: the agent stays to start Plex after it."""
    stop = plex.here / "stop"
    stop.write_text(stop.read_text().replace("pid=", "sleep 12; pid=", 1))
    process = puller.begin()
    wait_until(lambda: "stop" in plex.story)
    assert agent.stop() == 0
    process.kill()
    process.wait()
    assert plex.is_running()
    assert plex.story == ["start", "stop", "start"]
    assert json.loads((agent.state / "cutover.json").read_text())["phase"] == "idle"


class FakePlex:
    """As little of a service as it takes."""

    def __init__(self) -> None:
        self.runs = True

    starting: Sequence[str] = ("true",)

    def is_running(self) -> bool:
        """Whether it does."""
        return self.runs

    def may_run(self) -> bool:
        """The same."""
        return self.runs

    def look(self) -> Sight:
        """It hides."""
        return Sight.GONE

    def is_stop_under_way(self) -> bool:
        """It stops at once."""
        return False

    def give_up_stop(self) -> None:
        """Return that no Plex runs."""

    def run(self) -> str:
        """Nobody keeps one."""
        return ""

    def stop(self, _seconds: float, _ending: threading.Event) -> None:
        """At once."""
        self.runs = False

    def start(self) -> None:
        """Likewise."""
        self.runs = True

    def left(self) -> list[str]:
        """Nothing."""
        return []

    def check_fence(self, _path: str) -> None:
        """It holds."""


def test_disk_of_the_vm_is_full_when_the_lease_expires(tmp_path: Path) -> None:
    """Plex is started anyway; the record of that is written once there is space."""
    clock, plex = [0.0], FakePlex()
    context = CutoverContext(lambda *_: None, list, lambda _: True, lambda: clock[0])
    control = CutoverControl(str(tmp_path), plex, CutoverLimits(60, 5), context)
    control.begin(CutoverRequest("a" * 32, "pod"))
    assert not plex.runs
    clock[0] = 61.0
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with patch.object(record, "write_durably", side_effect=full):
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                control.tend()
            assert plex.runs
    control.tend()
    assert control.standing().phase == "idle"


def test_settings_that_cannot_be_read_when_the_agent_has_ended(tmp_path: Path) -> None:
    """The command that systemd then runs starts Plex as it was found at the stop."""
    state, started, settings = tmp_path / "state", tmp_path / "started", tmp_path / "agent.toml"
    state.mkdir()
    plex = FakePlex()
    plex.starting = ("touch", str(started))
    context = CutoverContext(lambda *_: None, list, lambda _: True)
    control = CutoverControl(str(state), plex, CutoverLimits(60, 5), context)
    control.begin(CutoverRequest("a" * 32, "pod"))
    settings.write_text("lease_seconds = nonsense")
    undo = ("undo", "--config", str(settings), "--state", state)
    with pytest.raises(subprocess.CalledProcessError):
        program("plexodus-agent", *undo)
    assert not started.exists()
    program("plexodus-agent", *undo, "--unless-committed")
    assert started.exists()
    assert control.standing().phase == "idle"


def test_start_command_that_leaves_something_running() -> None:
    """It has ended, and well: what it has started holds its output open, as daemons do."""
    began = time.monotonic()
    Commands(["true"], ["sh", "-c", "sleep 30 & exit 0"]).start()
    assert time.monotonic() - began < 10


def test_stop_command_of_a_plex_that_cannot_be_seen(
    new_agent: Callable[[Path], Agent], library: Path, target: Path, tmp_path: Path
) -> None:
    """A container may hide its processes: it is stopped, and started if the pull fails."""
    story = tmp_path / "story"
    agent = new_agent(library)
    agent.pair()
    agent.settings = tmp_path / "agent.toml"
    with agent.settings.open("w") as file:
        for each in ("stop", "start"):
            file.write(f'{each}_command = ["sh", "-c", "echo {each} >> {story}"]\n')
    with only_plex():
        agent.start()
        puller = Puller(target, tmp_path / "puller.log", agent.pairing, cutover=True)
        dies(puller, "initpuller.pull.passes", "Passes.bring")
        assert story.read_text().split() == ["stop"]
        assert agent.stop() == 0
    assert story.read_text().split() == ["stop", "start"]
