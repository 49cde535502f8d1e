"""SIGKILL, at any moment and many times over, of either side: what is journalled is kept."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences, sums_hold
from rig.programs import Agent, Puller
from rig.wirefaults import Faults, FaultyNetwork

from initpuller.assemble import BATCH
from shared.exitcodes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FRAME = 4 * 1024 * 1024
JOBS = 4
RATE = 100e6


@pytest.fixture
def many_frames(tmp_path: Path) -> Path:
    """A library of 81 frames, two thirds of them of large files."""
    root = tmp_path / "vm" / "Library"
    root.mkdir(parents=True)
    content = random.Random(11)  # noqa: S311 - the same tree each time
    for number in range(18):
        (root / f"large{number:02}").write_bytes(content.randbytes(3 * FRAME))
        below = root / f"folder{number:02}"
        below.mkdir()
        for file in range(15):
            (below / f"file{file:02}").write_bytes(content.randbytes(400_000))
    return root


@pytest.fixture
def slow(new_agent: Callable[[Path], Agent], many_frames: Path) -> Iterator[tuple[Agent, int]]:
    """A serving agent and the port of a slow network to it, so that kills land in the middle."""
    agent = new_agent(many_frames)
    with FaultyNetwork(agent.port, Faults(bytes_per_second=RATE)) as network:
        agent.pair(network.port)
        agent.start()
        yield agent, network.port


@pytest.fixture
def slow_puller(tmp_path: Path, slow: tuple[Agent, int]) -> Puller:
    """A puller behind that network."""
    target = tmp_path / "config"
    target.mkdir()
    return Puller(target, tmp_path / "puller.log", slow[0].pairing)


def journalled(target: Path) -> set[int]:
    """The frames that the journal on the volume holds, read by hand."""
    found = set()
    for journal in (target / ".plexodus").glob("journal-*"):
        for line in journal.read_text().splitlines(keepends=True):
            if line.startswith("done ") and line.endswith("\n"):
                found.add(int(line.split()[1]))
    return found


def wait_for_frames(agent: Agent, count: int) -> None:
    """Wait until the agent was asked for ``count`` frames in all."""
    deadline = time.monotonic() + 60
    while len(agent.frames_asked()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_puller_killed_eight_times(
    slow: tuple[Agent, int], slow_puller: Puller, many_frames: Path
) -> None:
    """Each kill costs what was under way and one batch at most; nothing journalled comes again."""
    agent = slow[0]
    moments = random.Random(3)  # noqa: S311 - the same moments each time
    kills = 8
    frames = set()
    for _ in range(kills):
        kept = journalled(slow_puller.target)
        before = len(agent.frames_asked())
        process = slow_puller.begin("--jobs", str(JOBS))
        wait_for_frames(agent, before + moments.randrange(2, 2 * BATCH))
        time.sleep(moments.random() / 10)
        process.kill()
        process.wait()
        asked = agent.frames_asked()[before:]
        frames.update(asked)
        assert kept.isdisjoint(asked)
        assert not (slow_puller.target / "Library").exists()
    kept = journalled(slow_puller.target)
    before = len(agent.frames_asked())

    done = slow_puller.pull("--jobs", str(JOBS))

    assert done.code == ExitCode.OK, done.text
    last = agent.frames_asked()[before:]
    assert kept.isdisjoint(last)
    frames.update(last)
    assert len(agent.frames_asked()) <= len(frames) + kills * (JOBS + 1 + BATCH)
    assert kept, "no kill came after a batch: the test would prove nothing"
    assert rsync_differences(many_frames, slow_puller.target / "Library") == []
    assert sums_hold(slow_puller.target)


def test_agent_killed_between_two_frames(
    slow: tuple[Agent, int], slow_puller: Puller, many_frames: Path
) -> None:
    """The same run goes on when the agent is back, and fetches only what was under way again."""
    agent = slow[0]
    kills = 4
    process = slow_puller.begin("--jobs", str(JOBS))
    for number in range(1, kills + 1):
        wait_for_frames(agent, number * 12)
        agent.kill()
        time.sleep(0.3)
        agent.start()

    done = slow_puller.finished(process)

    assert done.code == ExitCode.OK, done.text
    asked = agent.frames_asked()
    assert len(asked) <= len(set(asked)) + kills * (JOBS + 1)
    assert rsync_differences(many_frames, slow_puller.target / "Library") == []


def test_agent_comes_back_without_its_state(
    slow: tuple[Agent, int], slow_puller: Puller, many_frames: Path
) -> None:
    """An agent that has forgotten the snapshot scans again; frames on the volume are kept."""
    agent = slow[0]
    process = slow_puller.begin()
    wait_for_frames(agent, 40)
    agent.kill()
    kept = journalled(slow_puller.target)
    for snapshot in (agent.state / "snapshots").iterdir():
        for file in snapshot.iterdir():
            file.unlink()
        snapshot.rmdir()
    before = len(agent.frames_asked())
    agent.start()

    done = slow_puller.finished(process)

    assert done.code == ExitCode.OK, done.text
    after = [line for line in agent.frames_asked()[before:] if line in kept]
    assert kept
    assert not after
    assert agent.requests().count("POST /v1/snapshots") == 2
    assert rsync_differences(many_frames, slow_puller.target / "Library") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_puller_asked_to_stop(
    slow: tuple[Agent, int], slow_puller: Puller, number: signal.Signals
) -> None:
    """It ends with 130, with all that it unpacked journalled; the next run goes on from there."""
    agent = slow[0]
    process = slow_puller.begin()
    wait_for_frames(agent, 30)
    process.send_signal(number)

    done = slow_puller.finished(process)

    assert done.code == ExitCode.INTERRUPTED
    assert not (slow_puller.target / "Library").exists()
    kept = journalled(slow_puller.target)
    before = len(agent.frames_asked())
    assert len(kept) >= 30 - JOBS - 1
    assert slow_puller.pull().code == ExitCode.OK
    assert kept.isdisjoint(agent.frames_asked()[before:])
