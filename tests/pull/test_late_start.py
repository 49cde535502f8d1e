"""Plex is started at the end of ``pull --no-cutover``: what was transferred is not the source."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.paused_pull import STANDING, paused_pull
from rig.programs import clean_environment
from rig.waiting import wait_until

if TYPE_CHECKING:
    from rig.programs import Agent, Finished, Puller

PREPARED = ("initpuller.pull.recipe", "_prepare")
DISPLACED = ("initpuller.volume.publish.publish", "displace")
LONGER_THAN_AN_ANSWER = 2.5
"""Seconds after which an answer of the agent permits no publication."""
_FROZEN = """
import os, signal, sys
from initpuller.__main__ import main
from initpuller.agent_client.client import AgentClient

check, calls = AgentClient.check, []

async def frozen(*args):
    calls.append(await check(*args))
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGSTOP)

AgentClient.check = frozen
sys.argv[1:] = ["pull", *sys.argv[1:]]
main()
"""
"""A pull that is frozen when the answer to its last check arrives."""


def write(library: Path) -> None:
    """Change the library, as Plex does when it is started."""
    (library / "written by Plex").write_text("since")


def is_refused(puller: Puller, ended: Finished) -> None:
    """Assert that the change was found, and that nothing was published."""
    assert ended.code == 16, ended.text
    assert not (puller.target / "Library").exists()


@pytest.mark.parametrize("moment", [PREPARED, DISPLACED], ids=["receipt", "rename"])
def test_started_while_the_end_is_prepared(
    puller: Puller, library: Path, moment: tuple[str, str]
) -> None:
    """The databases, the facts for the receipt, or a slow volume may take long."""
    with paused_pull(puller, *moment) as process:
        write(library)
        time.sleep(LONGER_THAN_AN_ANSWER)
    is_refused(puller, puller.finished(process))


@pytest.mark.parametrize("call", [2, 3], ids=["before the last check", "after it"])
def test_started_while_the_agent_is_away(
    agent: Agent, puller: Puller, library: Path, call: int
) -> None:
    """The VM reboots, and its boot starts Plex. The retries of a question take that long."""
    with paused_pull(puller, *STANDING, call=call) as process:
        agent.kill()
    wait_until(lambda: "trying again" in puller.log.read_text(), meanwhile=process)
    write(library)
    time.sleep(LONGER_THAN_AN_ANSWER)
    agent.start()
    is_refused(puller, puller.finished(process))


def test_started_while_the_puller_is_frozen(puller: Puller, library: Path) -> None:
    """An answer that waited to be read says nothing about now."""
    command = [sys.executable, "-c", _FROZEN, "--target", str(puller.target)]
    environment = clean_environment() | puller.environment()
    with puller.log.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    status = Path(f"/proc/{process.pid}/status")
    wait_until(lambda: "State:\tT" in status.read_text(), meanwhile=process)
    write(library)
    time.sleep(LONGER_THAN_AN_ANSWER)
    process.send_signal(signal.SIGCONT)
    is_refused(puller, puller.finished(process))
