"""The agent's own check of a database, frozen while it has the database open."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rig.waiting import wait_until
from shared.wire import protocol

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from rig.programs import Agent

LOCK = 128
"""The byte of ``-shm`` that each connection locks (https://sqlite.org/walformat.html, 2.3.1)."""


def frozen_check(
    agent: Agent, workers: ThreadPoolExecutor, database: Path, plex: int
) -> tuple[Future[bytes], int]:
    """Have the agent check the database, and freeze the process that has it open."""
    for _ in range(50):  # a check of a small database is over soon
        checked = workers.submit(agent.get, f"{protocol.LIBRARY_SERVER}?database-check=full")
        while not checked.done():
            for pid in lock_holders(database) - {plex}:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    wait_until(partial(is_at_rest, pid))
                    if pid in lock_holders(database):
                        return checked, pid
                    os.kill(pid, signal.SIGCONT)
    raise AssertionError("no check was seen")


def is_at_rest(pid: int) -> bool:
    """Return whether a process is stopped, or ends: until then, it may release its locks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def lock_holders(database: Path) -> set[int]:
    """Return the processes that hold :data:`LOCK`, from /proc/locks (proc(5))."""
    inode, place = os.stat(f"{database}-shm").st_ino, f"{LOCK} {LOCK}"
    lines = Path("/proc/locks").read_text().splitlines()
    return {int(line.split()[4]) for line in lines if f":{inode} " in line and line.endswith(place)}
