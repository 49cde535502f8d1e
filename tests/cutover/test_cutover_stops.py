"""Plex is stopped and started again despite failures of the agent, its disk and its commands."""

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
from agent.cutover.context import CutoverContext
from agent.cutover.control import CutoverControl
from agent.plex.commands import Commands
from agent.plex.service import PlexService, Sight
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

SETTINGS = {"lease_seconds": 5.0, "stop_seconds": 30}


def test_agent_stopped_while_plex_stops_starts_plex_again(
    agent: Agent, puller: Puller, plex: PlexCommands
) -> None:
    """An agent that gets SIGTERM during a stop waits for the end of the stop, then starts Plex."""
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


class FakePlex(PlexService):
    """A Plex service that consists of a flag."""

    def __init__(self, starting: Sequence[str] = ("true",)) -> None:
        self.runs, self._starting = True, starting

    @property
    def starting(self) -> Sequence[str]:
        """Return the start command for the record."""
        return self._starting

    def is_running(self) -> bool:
        """Return whether it runs."""
        return self.runs

    def may_run(self) -> bool:
        """Return whether it runs."""
        return self.runs

    def look(self) -> Sight:
        """Return that no process is seen."""
        return Sight.GONE

    def is_stop_under_way(self) -> bool:
        """Return False, because it stops at once."""
        return False

    def give_up_stop(self) -> None:
        """Do nothing, because no stop is under way."""

    def run(self) -> str:
        """Return an empty identifier of the run."""
        return ""

    def stop(self, _seconds: float, _ending: threading.Event) -> None:
        """Stop at once."""
        self.runs = False

    def start(self) -> None:
        """Start at once."""
        self.runs = True

    def left(self) -> list[str]:
        """Return no remaining processes."""
        return []

    def check_fence(self, _path: str) -> None:
        """Accept every fence."""


def test_lease_expires_on_a_full_disk_starts_plex(tmp_path: Path) -> None:
    """On a full disk Plex is started anyway, and the record is written once there is space."""
    clock, plex = [0.0], FakePlex()
    context = CutoverContext(60, 5, lambda *_: None, clock=lambda: clock[0])
    control = CutoverControl(str(tmp_path), plex, context)
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


@pytest.mark.parametrize("damage", ["invalid", "failing disk", "a folder"])
def test_undo_with_unreadable_settings_uses_the_recorded_start_command(
    tmp_path: Path, damage: str
) -> None:
    """``undo --unless-committed`` with unusable settings runs the recorded start command."""
    state, started, settings = tmp_path / "state", tmp_path / "started", tmp_path / "agent.toml"
    state.mkdir()
    plex = FakePlex(("touch", str(started)))
    control = CutoverControl(str(state), plex, CutoverContext(60, 5, lambda *_: None))
    control.begin(CutoverRequest("a" * 32, "pod"))
    if damage == "invalid":
        settings.write_text("lease_seconds = nonsense")
    elif damage == "a folder":
        settings.mkdir()
    else:
        settings.symlink_to("/proc/self/mem")  # to read its first byte is an EIO
    undo = ("undo", "--config", str(settings), "--state", state)
    with pytest.raises(subprocess.CalledProcessError):
        program("plexodus-agent", *undo)
    assert not started.exists()
    program("plexodus-agent", *undo, "--unless-committed")
    assert started.exists()
    assert control.standing().phase == "idle"


def test_start_that_fails_once_while_the_agent_ends_is_repeated(tmp_path: Path) -> None:
    """Nobody is there to start Plex when the agent has ended, so the undo tries again itself."""
    state, settings = tmp_path / "state", tmp_path / "agent.toml"
    state.mkdir()
    context = CutoverContext(60, 5, lambda *_: None)
    control = CutoverControl(str(state), FakePlex(), context)
    control.begin(CutoverRequest("a" * 32, "pod"))
    script = f"cd {tmp_path}; [ -e tried ] || {{ touch tried; exit 1; }}; touch started"
    settings.write_text(f"stop_command = ['true']\nstart_command = ['sh', '-c', '{script}']\n")

    undo = ("undo", "--config", str(settings), "--state", state, "--unless-committed")
    with only_plex():
        program("plexodus-agent", *undo)

    assert (tmp_path / "started").exists()
    assert control.standing().phase == "idle"


def test_start_command_whose_child_holds_its_output_open_is_done() -> None:
    """A start command is done when it exits, although its child still has its output open."""
    began = time.monotonic()
    Commands(["true"], ["sh", "-c", "sleep 30 & exit 0"]).start()
    assert time.monotonic() - began < 10


def test_hidden_plex_is_stopped_and_started_if_the_pull_fails(
    new_agent: Callable[[Path], Agent], library: Path, target: Path, tmp_path: Path
) -> None:
    """A Plex whose processes are not visible is stopped, and started again if the pull fails."""
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
