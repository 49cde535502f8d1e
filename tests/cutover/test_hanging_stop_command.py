"""A stop_command hangs while a Plex that was started after the move is stopped again."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.waiting import wait_until

from agent.cutover.context import CutoverContext
from agent.cutover.control import CutoverControl
from agent.cutover.record import CutoverRecord
from agent.cutover.state import Cutover
from agent.plex import commands
from agent.plex.commands import Commands
from shared.errors import CutoverRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

HANGS = ["sleep", "1000"]
STOP_SECONDS = 0.1


def children() -> list[int]:
    """Return the pid of each stop_command of this process, also of one that nobody waited for."""
    found = []
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == f"{HANGS[0]}\n":
                found.append(int(pid))
    return found


class Started:
    """A committed move whose Plex a person has started."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_up = True
        state.mkdir()
        CutoverRecord(str(state)).save(Cutover("committed", "a" * 32, "pod"))
        monkeypatch.setattr(commands, "remains", lambda _: ["process 1"] if self.is_up else [])
        context = CutoverContext(60, STOP_SECONDS, lambda *_: None)
        self.plex = Commands(HANGS, ["true"])
        self.control = CutoverControl(str(state), self.plex, context)

    def guard(self) -> None:
        """Do the agent's periodic work."""
        with suppress(CutoverRefused):
            self.control.guard()


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """Return such a move. Its stop_commands are killed at the end."""
    started = Started(tmp_path / "state", monkeypatch)
    yield started
    started.plex.give_up_stop()


def end(pid: int) -> None:
    """End a process, and leave it to its parent."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: " Z " in Path(f"/proc/{pid}/stat").read_text())


def test_periodic_work_starts_one_stop_command(started: Started) -> None:
    """The agent's limit of tasks is not reached, however long the command hangs."""
    for _ in range(3):
        started.guard()
    (hanging,) = children()
    end(hanging)
    started.is_up = False
    started.guard()
    assert children() == []


def test_stop_command_that_ended_is_replaced(started: Started) -> None:
    """A Plex that still runs is stopped again, by one command."""
    started.guard()
    (hanging,) = children()
    end(hanging)
    started.guard()
    (another,) = children()
    assert another != hanging


def test_stop_waits_for_an_earlier_one() -> None:
    """A second stop_command is not started beside the first."""
    plex = Commands(HANGS, ["true"])
    for _ in range(2):
        with pytest.raises(CutoverRefused, match="within 0 s"):
            plex.stop(STOP_SECONDS, threading.Event())
    assert len(children()) == 1
    plex.give_up_stop()
    assert children() == []
