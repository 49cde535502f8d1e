"""Checks of cutovers with a stand-in for Plex, and pullers that are killed during one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from rig.oracle import rsync_differences, sums_hold
from rig.volume import RECEIPT_FILES, left_of_pull
from rig.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller


def phase(agent: Agent) -> str:
    """Return the state of the cutover, from the agent."""
    return str(json.loads(agent.get("/v1/cutover"))["phase"])


def events(agent: Agent) -> list[str]:
    """Return the names of the events in the migration log."""
    lines = (agent.state / "migration.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


def moved(agent: Agent, puller: Puller, plex: PlexCommands, library: Path) -> None:
    """Assert that the move is committed, Plex is stopped, and the volume equals the source."""
    assert phase(agent) == "committed"
    assert not plex.is_running()
    assert rsync_differences(library, puller.target / "Library") == []
    assert sums_hold(puller.target)
    assert left_of_pull(puller.target) == RECEIPT_FILES


def not_moved(agent: Agent, puller: Puller, plex: PlexCommands) -> None:
    """Assert that the move is not committed, Plex runs, and nothing is published."""
    wait_until(lambda: phase(agent) != "undoing")
    assert phase(agent) == "idle"
    assert plex.is_running()
    assert not (puller.target / "Library").exists()


def unheard_commit(puller: Puller) -> None:
    """Kill a puller after the agent has committed and before the puller gets the response."""
    dies(puller, "initpuller.agent_client.cutover", "CutoverClient.commit", after=True)


def dies(
    puller: Puller, module: str, name: str, *options: str, call: int = 1, after: bool = False
) -> None:
    """Run a pull that is killed at the ``call``-th call of ``name`` in ``module``.

    Args:
        puller: the puller, with target and pairing.
        module: name of one of the puller's modules.
        name: a function in the module, or a class and a method.
        options: options of the pull.
        call: number of the call, from 1.
        after: whether the kill comes after the call has returned, instead of before.
    """
    script = puller.target.with_name("dies.py")
    script.write_text(
        f"""
import importlib, inspect, os
from initpuller.__main__ import main
*above, last = {name!r}.split(".")
place = importlib.import_module({module!r})
for each in above:
    place = getattr(place, each)
real, calls = getattr(place, last), []
def dying(*args, **kwargs):
    calls.append(1)
    if len(calls) == {call} and not {after}:
        os._exit(99)
    answer = real(*args, **kwargs)
    if len(calls) < {call} or not {after}:
        return answer
    if not inspect.isawaitable(answer):
        os._exit(99)
    async def gone():
        await answer
        os._exit(99)
    return gone()
setattr(place, last, dying)
main()
"""
    )
    command = [sys.executable, script, *puller.command(*options)[1:]]
    ended = subprocess.run(command, check=False, capture_output=True, env=puller.environment())
    assert ended.returncode == 99, ended.stderr


def pull_with_command(puller: Puller, module: str, name: str, command: Path) -> tuple[int, str]:
    """Run a pull in which ``command`` runs before each call of ``name``.

    Args:
        puller: the puller, with target and pairing.
        module: name of one of the puller's modules.
        name: a function in the module, or a class and a method.
        command: the program, without arguments.

    Returns:
        The exit code, and all output.
    """
    script = puller.target.with_name("with_command.py")
    script.write_text(
        f"""
import importlib, subprocess
from initpuller.__main__ import main
*above, last = {name!r}.split(".")
place = importlib.import_module({module!r})
for each in above:
    place = getattr(place, each)
real = getattr(place, last)
def called(*args, **kwargs):
    subprocess.run([{str(command)!r}], check=True)
    return real(*args, **kwargs)
setattr(place, last, called)
main()
"""
    )
    words = [sys.executable, script, *puller.command()[1:]]
    environment = puller.environment()
    ended = subprocess.run(words, check=False, capture_output=True, text=True, env=environment)
    return ended.returncode, ended.stdout + ended.stderr
