"""SIGKILL of puller, agent or both, at random moments of one migration; its cost is counted."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest
from rig.hostile.fault_proxy import FaultProxy
from rig.oracle import rsync_differences, sums_hold
from rig.waiting import wait_until

from initpuller.pull.options import Mode, PullOptions
from initpuller.pull.recipe import pull
from initpuller.pull.transfer import BATCH
from initpuller.report.progress import PullProgress
from initpuller.volume.decision import OnExisting
from initpuller.volume.ownership import choose_ownership
from shared import durable
from shared.program.exit_codes import ExitCode
from shared.wire.pairing import parse_pairing

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.programs import Agent, Puller

pytestmark = pytest.mark.long

FRAME = 4 * 1024 * 1024
JOBS = 2
UNDER_WAY = 2 * JOBS
"""Frames: each process has one in hand and has asked for the next."""
LOST = UNDER_WAY + 1 + BATCH
"""Frames that one kill may cost: those under way, and one batch of the journal."""
RATE = 80e6
_log = logging.getLogger(__name__)
_DONE = re.compile(r"done (\d+) [0-9a-f]{64}\n")


@pytest.fixture(scope="module")
def large_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a library of 70 frames with large files and folders of small ones."""
    root = tmp_path_factory.mktemp("vm") / "Library"
    content = random.Random(5)  # noqa: S311 - the same tree each time
    for number in range(14):
        below = root / f"bundle{number:02}"
        below.mkdir(parents=True)
        (below / "large").write_bytes(content.randbytes(5 * FRAME // 2))
        (below / "link").symlink_to("large")
        for file in range(20):
            (below / f"small{file:02}").write_bytes(content.randbytes(content.randrange(500_000)))
    return root


@pytest.fixture
def slow_agent(
    new_agent: Callable[[Path], Agent], large_library: Path
) -> Iterator[tuple[Agent, FaultProxy]]:
    """Start an agent, and the slow proxy that its pairing names."""
    agent = new_agent(large_library)
    with FaultProxy(agent.port, RATE) as proxy:
        agent.pair(proxy.port)
        agent.start()
        yield agent, proxy


@pytest.fixture
def agent(slow_agent: tuple[Agent, FaultProxy]) -> Agent:
    """Return the agent alone."""
    return slow_agent[0]


def journalled(target: Path) -> set[int]:
    """Return the frames in the journals on the volume, read without our code."""
    found: set[int] = set()
    for journal in (target / ".plexodus").glob("journal-*"):
        for line in journal.read_text().splitlines(keepends=True):
            if done := _DONE.fullmatch(line):
                found.add(int(done[1]))
    return found


def wait_for_frames(agent: Agent, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the agent was asked for ``count`` frames in all."""
    wait_until(lambda: len(agent.frames_asked()) >= count, meanwhile=process)


def test_puller_killed_at_twelve_random_moments(
    agent: Agent, puller: Puller, large_library: Path
) -> None:
    """No journalled frame is requested again, and each kill costs at most its bound."""
    moments = random.Random(20)  # noqa: S311 - the same moments each time
    # Before the first frame, in the first batch, after it; last of all, when every frame is there.
    counts = [0, *(moments.randrange(1, 8) for _ in range(7)), BATCH, BATCH + 3, 0]
    moments.shuffle(counts)
    enough = sum(path.lstat().st_size for path in large_library.rglob("*")) // FRAME - BATCH
    waste = 0
    for count in counts:
        kept, before = journalled(puller.target), len(agent.frames_asked())
        process = puller.begin("--jobs", str(JOBS))
        if count >= BATCH and not kept:
            wait_until(lambda: bool(journalled(puller.target)), meanwhile=process)
        elif count:
            wait_for_frames(
                agent, before + min(count, 1 + max(0, enough - len(kept)) // 3), process
            )
        time.sleep(moments.random() / 8)
        process.kill()
        assert process.wait() == -9
        now, asked = journalled(puller.target), agent.frames_asked()[before:]
        assert not (puller.target / "Library").exists()
        assert kept <= now
        assert kept.isdisjoint(asked)
        lost = len(asked) - len(now - kept)
        assert lost <= LOST, f"{lost} frames of {len(asked)} are not on the volume"
        waste += lost
    kept, before, frames = journalled(puller.target), len(agent.frames_asked()), agent.scan().frames
    assert kept, "no kill came after a batch: the test would prove nothing"

    process = puller.begin("--jobs", str(JOBS))
    wait_until(lambda: len(journalled(puller.target)) == frames, meanwhile=process)
    process.kill()
    assert process.wait() == -9
    assert not (puller.target / "Library").exists()
    assert kept.isdisjoint(agent.frames_asked()[before:])
    every = journalled(puller.target)
    total = len(agent.frames_asked())
    done = puller.pull("--jobs", str(JOBS))

    assert done.code == ExitCode.OK, done.text
    assert every == set(range(len(every)))
    assert len(agent.frames_asked()) == total, "all frames were journalled before the last kill"
    assert total <= len(every) + (len(counts) + 1) * LOST
    assert rsync_differences(large_library, puller.target / "Library") == []
    assert sums_hold(puller.target)
    _log.info(
        "%d kills, %d frames, %d asked for again", len(counts) + 1, len(every), total - len(every)
    )


def test_both_killed_together_then_agent_loses_its_snapshots(
    agent: Agent, puller: Puller, large_library: Path
) -> None:
    """Both start again and resume; a snapshot lost under a running puller is scanned again."""
    process = puller.begin("--jobs", str(JOBS))
    wait_for_frames(agent, 2 * BATCH, process)
    agent.kill()
    process.kill()
    process.wait()
    kept, before = journalled(puller.target), len(agent.frames_asked())
    assert len(kept) >= 2 * BATCH - LOST
    assert not (puller.target / "Library").exists()

    agent.start()
    process = puller.begin("--jobs", str(JOBS))
    wait_for_frames(agent, before + 8, process)
    agent.kill()
    shutil.rmtree(agent.state / "snapshots")
    agent.start()
    done = puller.finished(process)

    assert done.code == ExitCode.OK, done.text
    lines = [{key: line[key] for key in line if key != "snapshot"} for line in done.log]
    events = [line["event"] for line in lines if "snapshot" in str(line)]
    said = [event for event in events if event != "progress"]
    assert said == ["scanning again, the whole library"], "asked in vain, repeatedly"
    assert kept.isdisjoint(agent.frames_asked()[before:])
    assert agent.requests().count("POST /v1/snapshots") == 3
    assert rsync_differences(large_library, puller.target / "Library") == []


def test_agent_made_anew_from_nothing_after_sigterm_of_puller(
    agent: Agent, slow_agent: tuple[Agent, FaultProxy], puller: Puller, large_library: Path
) -> None:
    """The journal survives SIGTERM and a new agent with another certificate."""
    process = puller.begin("--jobs", str(JOBS))
    wait_for_frames(agent, BATCH + 2, process)
    process.terminate()
    ended = puller.finished(process)
    kept, before = journalled(puller.target), len(agent.frames_asked())
    assert ended.code == ExitCode.INTERRUPTED, ended.text
    assert len(kept) >= before - UNDER_WAY
    assert not (puller.target / "Library").exists()

    agent.kill()
    shutil.rmtree(agent.state)
    pairing = agent.pair(slow_agent[1].port)
    agent.start()
    refused = puller.pull()
    puller.pairing = pairing
    done = puller.pull()

    assert refused.code == ExitCode.AUTHENTICATION
    assert "certificate" in refused.reason()
    assert done.code == ExitCode.OK, done.text
    assert kept.isdisjoint(agent.frames_asked()[before:])
    assert rsync_differences(large_library, puller.target / "Library") == []


class SlowDisk:
    """Stands before ``syncfs``: nothing is made durable until :attr:`goes_on`."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.is_asked = threading.Event()

    def sync(self, fd: int) -> None:
        """Replace ``syncfs`` by one that takes its time."""
        self.is_asked.set()
        assert self.goes_on.wait(60)
        durable.syncfs(fd)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    """Return the disk of a puller in this process."""
    disk = SlowDisk()
    monkeypatch.setattr("initpuller.volume.staging.staging.syncfs", disk.sync)
    return disk


def options(agent: Agent, target: Path) -> PullOptions:
    """Return the options of a pull in this process."""
    return PullOptions(
        pairing=parse_pairing(agent.pairing),
        target=str(target),
        mode=Mode.MOVE_STOPPED,
        ownership=choose_ownership(None),
        exclude=[],
        jobs=JOBS,
        on_existing=OnExisting.FAIL,
    )


async def test_no_more_than_a_batch_is_at_stake_while_the_disk_is_slow(
    agent: Agent, puller: Puller, disk: SlowDisk, large_library: Path
) -> None:
    """The bound of one batch holds however long a sync takes."""
    running = asyncio.create_task(pull(options(agent, puller.target), PullProgress()))
    try:
        assert await asyncio.to_thread(disk.is_asked.wait, 60)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert len(agent.frames_asked()) <= LOST
            await asyncio.sleep(0.05)
    finally:
        disk.goes_on.set()
        await running
    assert rsync_differences(large_library, puller.target / "Library") == []


async def test_stopped_while_a_batch_is_made_durable(
    agent: Agent, puller: Puller, disk: SlowDisk
) -> None:
    """The reaction to a signal waits for the disk; all unpacked frames are in the journal."""
    running = asyncio.create_task(pull(options(agent, puller.target), PullProgress()))
    assert await asyncio.to_thread(disk.is_asked.wait, 60)
    deadline = time.monotonic() + 60
    while len(agent.frames_asked()) < BATCH - 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)

    running.cancel()
    ended, _ = await asyncio.wait({running}, timeout=0.5)
    disk.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not ended
    assert len(journalled(puller.target)) >= len(agent.frames_asked()) - UNDER_WAY
    assert not (puller.target / "Library").exists()
