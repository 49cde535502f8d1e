"""A signal while the library is published, or after it: no failure is reported for what is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.programs import clean_environment
from rig.waiting import wait_until

from initpuller.volume.records.layout import Layout
from initpuller.volume.records.lock import locked
from shared.errors import VolumeLocked

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent, Puller

_PULL = """
import os, signal, sys, threading, time
from pathlib import Path
from initpuller.__main__ import main
from initpuller.volume.publish import publish

real, moment, agent, mark = publish.publish, sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])

def end():
    os.kill(os.getpid(), signal.SIGTERM)

def published(record, _permit):
    if moment == "before":
        end()
        time.sleep(0.3)
        mark.touch()
        while mark.exists():
            time.sleep(0.01)
    receipt = real(record, lambda: None)  # the wait above takes long
    if moment == "over":
        mark.touch()
    if moment == "after":
        os.kill(agent, signal.SIGSTOP)  # it accepts the last request, and does not answer
        threading.Timer(1, end).start()
    return receipt

publish.publish = published
sys.argv[1:] = ["pull", *sys.argv[4:]]
main()
"""
"""A pull that gets SIGTERM at a moment that no test could meet from outside."""


def begin(puller: Puller, agent: Agent, moment: str, *options: str) -> subprocess.Popen[bytes]:
    """Start such a pull."""
    mark = puller.target / "mark"
    words: list[str | Path] = [moment, str(agent.pid), mark, "--target", puller.target, *options]
    environment = clean_environment() | puller.environment()
    with puller.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _PULL, *words], stdout=log, stderr=log, env=environment
        )


def is_locked(target: Path) -> bool:
    """Return whether a puller holds the volume's lock."""
    try:
        with locked(Layout(str(target))):
            return False
    except VolumeLocked:
        return True


@pytest.mark.parametrize("options", [(), ("--rehearse",)], ids=["move", "rehearsal"])
def test_signal_while_the_library_gets_its_name(
    agent: Agent, puller: Puller, library: Path, options: tuple[str, ...]
) -> None:
    """The rename cannot be stopped: until its end the volume is locked, and the pull succeeds."""
    process, mark = begin(puller, agent, "before", *options), puller.target / "mark"
    wait_until(mark.exists, meanwhile=process)
    assert is_locked(puller.target)
    process.send_signal(signal.SIGTERM)
    assert not (puller.target / "Library").exists()
    mark.unlink()
    done = puller.finished(process)
    assert done.code == 0, done.text
    assert rsync_differences(library, puller.target / "Library") == []


def test_signal_while_the_agent_does_not_answer_the_last_request(
    agent: Agent, puller: Puller, library: Path
) -> None:
    """The library is published then: 130 would have somebody start the old server beside it."""
    process = begin(puller, agent, "after")
    try:
        done = puller.finished(process)
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    assert done.code == 0, done.text
    assert rsync_differences(library, puller.target / "Library") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_until_the_process_is_gone(
    agent: Agent, puller: Puller, library: Path, number: signal.Signals
) -> None:
    """Not one of many meets a moment in which it replaces the exit code."""
    process, mark = begin(puller, agent, "over"), puller.target / "mark"
    wait_until(mark.exists, meanwhile=process)
    while process.poll() is None:
        process.send_signal(number)
        time.sleep(0.0005)
    done = puller.finished(process)
    assert done.code == 0, done.text
    assert rsync_differences(library, puller.target / "Library") == []


def test_terminal_is_closed_under_nohup(agent: Agent, puller: Puller, library: Path) -> None:
    """A pull that is to outlive the terminal does."""
    with puller.log.open("wb") as log:
        process = subprocess.Popen(
            ["nohup", *puller.command()], stdout=log, stderr=log, env=puller.environment()
        )
    wait_until(agent.frames_asked)
    process.send_signal(signal.SIGHUP)
    done = puller.finished(process)
    assert done.code == 0, done.text
    assert rsync_differences(library, puller.target / "Library") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_before_the_publication(
    agent: Agent, puller: Puller, number: signal.Signals
) -> None:
    """Without a library, the exit code says so."""
    process = puller.begin()
    wait_until(agent.frames_asked)
    process.send_signal(number)
    ended = puller.finished(process)
    assert ended.code == 130, ended.text
    assert not (puller.target / "Library").exists()
