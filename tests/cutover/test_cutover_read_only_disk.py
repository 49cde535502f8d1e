"""Plex is started again although the filesystem of the state folder has become read-only."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import dies, phase
from rig.mounts import NEEDS_ROOT, mounted, tmpfs
from rig.plex.commands import PlexCommands, only_plex
from rig.programs import program
from rig.waiting import wait_until

from agent.cutover.context import CutoverContext
from agent.cutover.control import CutoverControl
from agent.cutover.record import witness_folder
from agent.plex.commands import Commands
from shared.file_lock import locked_file
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rig.programs import Agent, Puller

pytestmark = NEEDS_ROOT
SETTINGS = {"lease_seconds": 5.0, "stop_seconds": 30}
LEASE = 5.0
SEVERAL_CHECKS = 8.0
"""Seconds in which the agent checks the lease several times, and would start Plex again."""


def remount(place: Path, option: str) -> None:
    """Change an option of the filesystem at ``place``, as the kernel does after an I/O error."""
    subprocess.run(["mount", "-o", f"remount,{option}", place], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only for running programs until the block ends.

    The kernel refuses that while one of them has a file open there for writing.
    """
    command = ["mount", "-o", "remount,bind,ro", str(folder)]
    with mounted(folder, "--bind", folder):
        wait_until(lambda: subprocess.run(command, check=False).returncode == 0, seconds=10)
        yield


@pytest.fixture
def orders(plex: PlexCommands) -> Path:
    """Return the file in which each order to start Plex is counted from now on."""
    start, path = plex.here / "start", plex.here / "orders"
    start.write_text(start.read_text().replace("\n", f"\necho start >> '{path}'\n", 1))
    return path


@pytest.fixture
def stopped(agent: Agent, puller: Puller, plex: PlexCommands, orders: Path) -> Agent:
    """Return an agent whose Plex is stopped for a puller that was killed."""
    dies(puller, "initpuller.pull.passes", "Passes.bring")
    assert phase(agent) == "stopped"
    assert not plex.is_running()
    return agent


@contextmanager
def read_only_state(agent: Agent) -> Iterator[None]:
    """Make both folders of the agent's record read-only."""
    with read_only(agent.state), read_only(agent.state.with_name(f"{agent.state.name}-witness")):
        yield


def test_lease_expires_on_a_read_only_disk_starts_plex(
    stopped: Agent, plex: PlexCommands, orders: Path
) -> None:
    """Plex is started once, and the record is written when the disk can be written again."""
    with read_only_state(stopped):
        plex.wait_until(running=True, seconds=30)
        time.sleep(SEVERAL_CHECKS)
        assert orders.read_text().split() == ["start"]
    wait_until(lambda: phase(stopped) == "idle")
    assert orders.read_text().split() == ["start"]


@pytest.mark.parametrize("option", [[], ["--unless-committed"]])
def test_undo_on_a_read_only_disk_starts_plex(
    stopped: Agent, plex: PlexCommands, orders: Path, option: list[str]
) -> None:
    """``plexodus-agent undo`` starts Plex once, and reports that the record is not written."""
    stopped.kill()
    assert stopped.settings is not None
    where = ("--config", stopped.settings, "--state", stopped.state)
    with read_only_state(stopped):
        done = program("plexodus-agent", "undo", *where, *option, check=False)
        assert plex.is_running()
    assert done.returncode == 15, done.stderr
    assert "Read-only file system" in done.stderr
    assert orders.read_text().split() == ["start"]
    assert json.loads((stopped.state / "cutover.json").read_text())["phase"] == "stopped"


def test_invisible_plex_is_started_once_on_a_read_only_disk(tmp_path: Path) -> None:
    """An agent that cannot see Plex does not repeat its start_command each second."""
    clock, story = [0.0], tmp_path / "story"
    context = CutoverContext(60, 5, lambda *_: None, clock=lambda: clock[0])
    plex = Commands(["true"], ["sh", "-c", f"echo start >> {story}"])
    with only_plex(), tmpfs(tmp_path / "disk") as disk:
        (disk / "state").mkdir()
        control = CutoverControl(str(disk / "state"), plex, context)
        control.begin(CutoverRequest("a" * 32, "pod"))
        remount(disk, "ro")
        for clock[0] in (61.0, 62.0, 63.0, 80.0):
            with pytest.raises(OSError, match="Read-only"):
                control.tend()
        assert story.read_text().split() == ["start"]
        assert control.standing().phase == "undoing"
        remount(disk, "rw")
        control.tend()
        assert control.standing().phase == "idle"
        assert CutoverControl(str(disk / "state"), plex, context).standing().phase == "idle"
    assert story.read_text().split() == ["start"]


def test_committed_move_stays_committed_on_a_read_only_disk(tmp_path: Path) -> None:
    """The undo of a committed move that cannot be recorded is refused, and not done later."""
    story = tmp_path / "story"
    context = CutoverContext(60, 5, lambda *_: None, clock=lambda: 0.0, has_cold=lambda _: True)
    plex = Commands(["true"], ["sh", "-c", f"echo start >> {story}"])
    with only_plex(), tmpfs(tmp_path / "disk") as disk:
        (disk / "state").mkdir()
        control = CutoverControl(str(disk / "state"), plex, context)
        control.begin(CutoverRequest("a" * 32, "pod"))
        control.commit("a" * 32, "f" * 64)
        remount(disk, "ro")
        with pytest.raises(OSError, match="Read-only"):
            control.lift("asked for", committed=True)
        control.tend()
        assert control.standing().phase == "committed"
    assert not story.exists()


def test_lock_of_a_read_only_disk_excludes_other_processes(tmp_path: Path) -> None:
    """The lock file is held although it cannot be written. A missing one is reported."""
    with tmpfs(tmp_path / "disk") as disk:
        path = disk / "lock"
        path.touch()
        remount(disk, "ro")
        with locked_file(str(path), writes=False):
            done = subprocess.run(["flock", "--nonblock", path, "true"], check=False)
            assert done.returncode == 1
        with pytest.raises(FileNotFoundError), locked_file(str(disk / "no"), writes=False):
            pass
        with pytest.raises(OSError, match="Read-only"), locked_file(str(path)):
            pass


def test_read_only_state_folder_without_a_lock_uses_the_witness(tmp_path: Path) -> None:
    """A restored state folder without a lock file does not prevent the start of Plex."""
    clock, story = [0.0], tmp_path / "story"
    context = CutoverContext(60, 5, lambda *_: None, clock=lambda: clock[0])
    plex = Commands(["true"], ["sh", "-c", f"echo start >> {story}"])
    with only_plex(), tmpfs(tmp_path / "state") as state:
        control = CutoverControl(str(state), plex, context)
        control.begin(CutoverRequest("a" * 32, "pod"))
        (state / "cutover.lock").unlink()
        assert witness_folder(str(state)) == str(tmp_path / "state-witness")
        remount(state, "ro")
        clock[0] = 61.0
        with pytest.raises(OSError, match="Read-only"):
            control.tend()
    assert story.read_text().split() == ["start"]
