"""Plex is not stopped repeatedly without need, nor for longer than allowed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from rig.cutover.cutovers import dies, moved, not_moved, phase
from rig.programs import Agent, Puller, program
from rig.waiting import wait_until

from agent.cutover.stop_history import StopHistory, check_repeated
from initpuller.pull.stop_terms import StopTerms
from shared import errors
from shared.checks import CheckId
from shared.errors import CutoverRefused
from shared.wire.protocol import CUTOVER_REFUSED, CutoverRequest

if TYPE_CHECKING:
    from pathlib import Path

    from rig.plex.commands import PlexCommands

pytestmark = pytest.mark.long

SETTINGS = {"lease_seconds": 5.0, "stop_seconds": 30}
_FAILS = """
from initpuller.__main__ import main
from initpuller.pull.passes import Passes
from shared.errors import {error}
async def bring(*_):
    raise {error}({message!r}, path="poster.jpg")
Passes.bring = bring
main()
"""
_BROKEN = _FAILS.format(error="StorageError", message="the volume does not hold what was written")
_DAMAGED = _FAILS.format(error="IntegrityError", message="a file of the source is damaged")
_STALLED = """
import asyncio
from initpuller.__main__ import main
from initpuller.pull.passes import Passes
async def bring(*_):
    await asyncio.sleep(600)
Passes.bring = bring
main()
"""


def run(puller: Puller, script: str, *options: str) -> tuple[int, str]:
    """Pull with parts replaced, and return exit code and log."""
    path = puller.target.with_name("replaced.py")
    path.write_text(script)
    command = [sys.executable, str(path), *puller.command(*options)[1:]]
    ended = subprocess.run(
        command, check=False, capture_output=True, env=puller.environment(), text=True
    )
    return ended.returncode, ended.stderr


def test_permanent_failure_while_plex_is_stopped(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path, tmp_path: Path
) -> None:
    """A permanent failure stops Plex once, on any volume, unless another stop is forced."""
    code, text = run(puller, _BROKEN)
    assert code == 15, text
    not_moved(agent, puller, plex)
    stops = plex.story.count("stop")
    for _ in range(2):
        code, text = run(puller, _BROKEN)
        assert code == 15, text
        assert "poster.jpg" in text
        assert "--retry-failed" in text
    for each in puller.target.iterdir():
        shutil.rmtree(each)
    code, text = run(puller, _BROKEN)
    assert code == 15, text
    assert plex.story.count("stop") == stops
    done = puller.pull("--retry-failed")
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)
    record = json.loads((agent.state / "cutover.json").read_text())
    assert record["history"]["failure"] is None


def test_other_options_after_a_permanent_failure(
    agent: Agent, puller: Puller, plex: PlexCommands
) -> None:
    """With changed options, a pull stops Plex again without being forced."""
    assert run(puller, _BROKEN)[0] == 15
    done = puller.pull("--exclude", "poster.jpg")
    assert done.code == 0, done.text
    assert plex.story.count("stop") == 2


def test_source_is_mended_after_a_permanent_failure(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """After a repair of the source, Plex is stopped again without an option."""
    code, text = run(puller, _DAMAGED)
    assert code == 13, text
    not_moved(agent, puller, plex)
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)


@pytest.mark.parametrize(
    ("error", "is_remembered"),
    [
        (errors.StorageError("the filesystem refused"), True),
        (errors.NoSpace("no space left"), True),
        (errors.TreeDiffers(["Library: owner"], "/config"), True),
        (errors.TargetConflict("the name was taken"), False),
        (errors.ConfigurationError("the owner cannot be set"), True),
        (errors.VolumeUnsuitable("two names are one file"), False),
        (errors.AgentStorageError("the agent's disk is full"), False),
        (errors.PreflightRefused("a database is damaged"), False),
        (errors.SourceUnreadable(["Library/a"]), False),
        (errors.IllegalPath("a name that leads out"), False),
        (errors.FrameDamagedTwice("damaged twice"), False),
        (errors.ManifestTooLarge("too many entries"), False),
        (errors.SourceChanged("the library has changed"), False),
        (errors.CutoverRefused("stopped for too long"), False),
        (errors.Interrupted("stopped by a signal"), False),
        (errors.AgentUnreachable("no answer"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_failures_that_a_change_on_the_vm_can_end(
    tmp_path: Path, error: Exception, *, is_remembered: bool
) -> None:
    """Only failures that depend on the volume or the options are remembered."""
    terms = StopTerms(circumstances={"volume": "a"}, target=str(tmp_path))
    assert (terms.remembered(error) is not None) is is_remembered


def test_no_byte_arrives_while_plex_is_stopped(
    agent: Agent, puller: Puller, plex: PlexCommands
) -> None:
    """Plex is started after the allowed time, however often the lease is renewed."""
    code, text = run(puller, _STALLED, "--downtime", "1", "--max-downtime", "7")
    assert code == 17, text
    assert "--max-downtime" in text
    not_moved(agent, puller, plex)


def test_time_that_ends_while_no_puller_runs(puller: Puller, plex: PlexCommands) -> None:
    """The next pull has stopped nothing for too long: it moves, and does not end with 17."""
    limits = ("--downtime", "1", "--max-downtime", "3")
    dies(puller, "initpuller.pull.cutover", "Cutover.commit", *limits)
    plex.wait_until(running=True)
    done = puller.pull()
    assert done.code == 0, done.text


def test_client_that_renews_the_lease_for_ever(agent: Agent, plex: PlexCommands) -> None:
    """The agent starts Plex after the allowed time, and refuses each later renewal."""
    name = "a" * 32
    request = {"id": name, "puller": "a client", "max_seconds": 3.0}
    agent.ask("POST", "/v1/cutover", json.dumps(request).encode())
    assert not plex.is_running()
    route, deadline, renewals = f"/v1/cutover/{name}/lease", time.monotonic() + 60, 0
    while (answer := ask_lease(agent, route))[0] == 200:
        assert time.monotonic() < deadline
        assert not plex.is_running()
        renewals += 1
    assert renewals > 0
    while True:
        assert answer[0] == 409
        assert answer[1]["type"] == CUTOVER_REFUSED
        assert "--max-downtime" in answer[1]["detail"]
        if phase(agent) == "idle":
            break
        assert time.monotonic() < deadline
        answer = ask_lease(agent, route)
    assert plex.story == ["start", "stop", "start"]
    assert plex.is_running()


def ask_lease(agent: Agent, route: str) -> tuple[int, dict[str, Any]]:
    """Return status and body of a renewal, a moment after the last one."""
    time.sleep(0.1)
    with closing(agent.connect()) as http:
        http.request("PUT", route, headers={"Authorization": f"Bearer {agent.token}"})
        response = http.getresponse()
        return response.status, json.loads(response.read())


def test_stop_command_that_fails(agent: Agent, puller: Puller, plex: PlexCommands) -> None:
    """A failing stop command is tried once, and again after a restart of the agent."""
    stop = plex.here / "stop"
    works = stop.read_text()
    stop.write_text(f'#!/bin/sh\necho stop >> "{plex.here}/story"; echo denied >&2; exit 1\n')
    for _ in range(2):
        done = puller.pull()
        assert done.code == 17, done.text
        assert "denied" in done.reason()
    assert plex.story.count("stop") == 1
    if phase(agent) == "undoing":  # the agent expects that the stop still ends Plex
        os.kill(int((plex.here / "pid").read_text()), signal.SIGKILL)
        wait_until(lambda: phase(agent) == "idle")
    report = json.loads(agent.get("/v1/library/server?identify-checks=true"))
    (can_stop,) = [check for check in report["checks"] if check["id"] == CheckId.CUTOVER.value]
    assert can_stop["outcome"] == "warning"
    assert "denied" in can_stop["found"]
    stop.write_text(works)
    agent.stop()
    agent.start()
    assert puller.pull().code == 0


def test_pause_between_stops_grows() -> None:
    """After three stops in a row the pause grows, and a reboot neither shortens nor resets it."""
    history, pauses = StopHistory(), list[float]()
    for _ in range(12):
        history = history.after_stop(10_000.0)
        pauses.append(history.pause(10_000.0))
    assert pauses[:5] == [0.0, 0.0, 60.0, 120.0, 240.0]
    assert pauses[-1] == 3600.0
    assert history.pause(13_600.0) == 0.0
    assert history.pause(5.0) == 3595.0
    request = CutoverRequest("a" * 32, "pod")
    with pytest.raises(CutoverRefused, match="12 times in a row"):
        check_repeated(history, request, 10_000.0)
    check_repeated(history, CutoverRequest("a" * 32, "pod", retry=True), 10_000.0)


def restore(state: Path, backup: Path) -> None:
    """Restore the state folder as it was when ``backup`` was made."""
    shutil.rmtree(state)
    shutil.copytree(backup, state)


def test_state_folder_restored_while_plex_is_stopped(
    agent: Agent, puller: Puller, plex: PlexCommands, tmp_path: Path
) -> None:
    """A cutover that is missing in the restored backup is undone too."""
    shutil.copytree(agent.state, tmp_path / "backup")
    process = puller.begin()
    plex.wait_until(running=False)
    agent.kill()
    process.kill()
    process.wait()
    restore(agent.state, tmp_path / "backup")
    agent.start()
    plex.wait_until(running=True)
    not_moved(agent, puller, plex)


def test_state_folder_restored_after_the_move(
    agent: Agent, puller: Puller, plex: PlexCommands, tmp_path: Path
) -> None:
    """After a restore Plex stays down, ``status`` gives the reason, and ``undo`` works."""
    shutil.copytree(agent.state, tmp_path / "backup")
    assert puller.pull().code == 0
    agent.kill()
    restore(agent.state, tmp_path / "backup")
    plex.start()
    options = ("--state", agent.state, "--config", agent.settings or "")
    assert "committed" in program("plexodus-agent", "status", *options).stdout
    agent.start()
    plex.wait_until(running=False)
    deadline = time.monotonic() + 10
    while not (agent.state / "fence").exists():
        assert time.monotonic() < deadline
    assert program("plexodus-agent", "undo", *options).returncode == 0
    assert plex.is_running()


def test_settings_that_cannot_be_read_and_another_state_folder(
    agent: Agent, puller: Puller, plex: PlexCommands, tmp_path: Path
) -> None:
    """The command that systemd runs at the end finds the state folder without settings."""
    agent.stop()
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    agent.start(environment=runtime)
    process = puller.begin()
    plex.wait_until(running=False)
    agent.kill()
    process.kill()
    process.wait()
    (tmp_path / "broken.toml").write_text("nonsense")
    config = str(tmp_path / "broken.toml")
    undo = ("undo", "--unless-committed", "--config", config)
    program("plexodus-agent", *undo, environment=runtime)
    assert plex.is_running()
