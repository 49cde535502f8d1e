"""The agent is killed under a running puller, and the same run resumes when it is back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from rig.hostile.fault_proxy import FaultProxy
from rig.oracle import rsync_differences
from rig.programs import Puller
from rig.waiting import wait_until

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent

JOBS = 2
RATE = 10e6


def test_agent_killed_between_two_frames(agent: Agent, library: Path, tmp_path: Path) -> None:
    """Three kills each cost the frames under way, and no second scan."""
    target = tmp_path / "config"
    target.mkdir()
    with FaultProxy(agent.port, RATE) as proxy:
        puller = Puller(target, tmp_path / "puller.log", agent.pair(proxy.port))
        process = puller.begin("--jobs", str(JOBS))
        for reached in (2, 5, 8):
            wait_until(partial(_has_asked, agent, reached), meanwhile=process)
            agent.kill()
            agent.start()
        done = puller.finished(process)

    assert done.code == ExitCode.OK, done.text
    asked = agent.frames_asked()
    assert len(asked) - len(set(asked)) <= 3 * (JOBS + 1)
    assert agent.requests().count("POST /v1/snapshots") == 1
    assert rsync_differences(library, target / "Library") == []


@pytest.mark.long
def test_agent_gone_for_good(agent: Agent, puller: Puller) -> None:
    """The puller retries for a while, then exits 11 with the agent's address."""
    agent.kill()

    done = puller.pull()

    assert done.code == ExitCode.UNREACHABLE
    assert str(agent.port) in done.reason()
    assert not (puller.target / "Library").exists()


def _has_asked(agent: Agent, frames: int) -> bool:
    return len(agent.frames_asked()) >= frames
