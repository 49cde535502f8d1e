"""Plex that runs although nobody was to start it: its open databases never arrive with exit code 0.

Plex that only opens its databases changes no file between the scan and the check of the source.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.plex.commands import SERVER
from rig.waiting import wait_until

from shared.plex.library import DATABASE_FOLDER, DATABASES
from shared.plex.sqlite_query import Use, find_use, query
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.programs import Agent, Puller

BELOW_SERVER = Path(DATABASE_FOLDER)
_LOCK = 128
"""The byte of ``-shm`` that each connection locks (https://sqlite.org/walformat.html, 2.3.1)."""
_OPEN = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
print("open", flush=True)
sys.stdin.read()
connection.close()
"""
_SLOW = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 8000000)
SELECT count(*) FROM n, (SELECT count(*) FROM sqlite_master)
"""


@contextmanager
def opened(database: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process open the database as Plex does, and do nothing with it; then close it."""
    command = [sys.executable, "-c", _OPEN, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield process


def check(agent: Agent, snapshot: str) -> tuple[int, bytes]:
    """Return status and body of the check of the source."""
    with closing(agent.connect()) as http:
        head = {"Authorization": f"Bearer {agent.token}"}
        http.request("POST", protocol.check_path(snapshot), b"", head)
        response = http.getresponse()
        return response.status, response.read()


@pytest.fixture
def library(plex_library: Path) -> Path:
    """A Plex library."""
    return plex_library


@pytest.mark.parametrize("name", DATABASES)
def test_running_plex_is_noticed_before_a_byte_moves(
    agent: Agent, puller: Puller, library: Path, name: str
) -> None:
    """Its ``-wal`` and ``-shm`` are not published, and nobody waits for a copy first."""
    database = library / SERVER / BELOW_SERVER / name
    with opened(database):
        assert database.with_name(f"{name}-wal").exists()
        refused = puller.pull()
        assert refused.code == 16, refused.text
        assert str(database) in refused.reason()
        assert agent.frames_asked() == []
        assert not (puller.target / "Library").exists()
    done = puller.pull()
    assert done.code == 0, done.text
    assert rsync_differences(library, puller.target / "Library") == []


def test_plex_that_was_started_after_the_scan_and_changed_nothing(
    agent: Agent, library: Path
) -> None:
    """The lock alone gives it away. Without it, the library is as it was scanned."""
    database = library / SERVER / BELOW_SERVER / DATABASES[0]
    with opened(database) as plex:
        plex.kill()  # leaves both side files, so a start makes no new ones
        plex.wait()
    snapshot = agent.scan().id
    index = database.with_name(f"{database.name}-shm")
    with index.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_SH, 1, _LOCK)
        status, body = check(agent, snapshot)
        problem = json.loads(body)
        assert (status, problem["type"]) == (409, protocol.SOURCE_CHANGED)
        assert problem["paths"] == [str(database)]
    assert check(agent, snapshot) == (204, b"")


def test_killed_plex_is_stopped(puller: Puller, library: Path) -> None:
    """Its ``-wal`` has the last changes: it is moved, not taken for a running Plex."""
    database = library / SERVER / BELOW_SERVER / DATABASES[0]
    with opened(database) as plex:
        plex.kill()
        plex.wait()
    left = [database.with_name(f"{database.name}{end}") for end in ("-wal", "-shm")]
    assert all(path.exists() for path in left)
    done = puller.pull()
    assert done.code == 0, done.text
    assert rsync_differences(library, puller.target / "Library") == []


def test_server_folder_alone(
    new_agent: Callable[[Path], Agent], library: Path, puller: Puller
) -> None:
    """A library that is Plex's own folder, reached by a symlink, is guarded, too."""
    link = library.with_name("Plex Media Server")
    link.symlink_to(library / SERVER)
    agent = new_agent(link)
    puller.pairing = agent.pair()
    agent.start()
    with opened(library / SERVER / BELOW_SERVER / DATABASES[0]):
        assert puller.pull().code == 16
    assert puller.pull().code == 0


def test_open_databases_of_others_are_theirs(
    new_agent: Callable[[Path], Agent], tmp_path: Path, puller: Puller, library: Path
) -> None:
    """Any folder moves while a program reads a database in it; nothing in it has changed."""
    folder = tmp_path / "vm" / "Books"
    shutil.copytree(library / SERVER / BELOW_SERVER, folder)
    database = folder / DATABASES[0]
    agent = new_agent(folder)
    puller.pairing = agent.pair()
    agent.start()
    with opened(database):
        done = puller.pull()
        assert done.code == 0, done.text
        assert rsync_differences(folder, puller.target / "Books") == []


def test_own_checks_are_not_taken_for_plex(library: Path) -> None:
    """A query that began while Plex ran outlives it, and is known as our own."""
    database = str(library / SERVER / BELOW_SERVER / DATABASES[0])
    with ThreadPoolExecutor(1) as workers:
        with opened(Path(database)):
            answer = workers.submit(query, database, [_SLOW])
            wait_until(lambda: _holders(f"{database}-shm") == 2)
            assert find_use(database) is Use.OTHERS
        assert find_use(database) is Use.OURS
        assert answer.result() == [[[8_000_000]]]
    assert find_use(database) is Use.NONE


def _holders(path: str) -> int:
    """Return the number of processes that hold :data:`_LOCK`, from /proc/locks (proc(5))."""
    inode, place = os.stat(path).st_ino, f"{_LOCK} {_LOCK}"
    lines = Path("/proc/locks").read_text().splitlines()
    return sum(f":{inode} " in line and line.endswith(place) for line in lines)
