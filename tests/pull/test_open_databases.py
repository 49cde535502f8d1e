"""Plex that runs although nobody was to start it: its open databases never arrive with exit code 0.

Plex that only opens its databases changes no file between the scan and the check of the source.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.plex.commands import SERVER
from rig.plex.frozen_check import LOCK, frozen_check, lock_holders
from rig.plex.reader import opened
from rig.programs import Puller
from rig.waiting import wait_until

from shared.plex.library import DATABASE_FOLDER, DATABASES
from shared.plex.sqlite_check import check_database
from shared.plex.sqlite_query import Use, find_use, query
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from rig.programs import Agent

BELOW_SERVER = Path(DATABASE_FOLDER)
_SLOW = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 8000000)
SELECT count(*) FROM n, (SELECT count(*) FROM sqlite_master)
"""


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
        fcntl.lockf(file, fcntl.LOCK_SH, 1, LOCK)
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


def _same(library: Path) -> Path:
    return library


def _server(library: Path) -> Path:
    return library / SERVER


def _link_to_library(library: Path) -> Path:
    link = library.with_name("plexlib")
    link.symlink_to(library)
    return link


def _link_to_server(library: Path) -> Path:
    link = library.with_name("Plex Media Server")
    link.symlink_to(library / SERVER)
    return link


def _folder_around(library: Path) -> Path:
    return library.parent


def _server_below_library(library: Path) -> Path:
    """As on QNAP: without ``Application Support``."""
    (library / SERVER).rename(library / "Plex Media Server")
    (library / SERVER).parent.rmdir()
    return library


def _database_elsewhere(library: Path) -> Path:
    """The database is a symlink. Without its parent folder, the preflight refuses the library."""
    database = library / SERVER / BELOW_SERVER / DATABASES[0]
    database.rename(library / "moved.db")
    database.symlink_to(library / "moved.db")
    return library.parent


def _not_utf_8(library: Path) -> Path:
    """The folder around it has a name in Latin-1, as an old system left it."""
    folder = library.with_name(os.fsdecode(b"caf\xe9"))
    folder.mkdir()
    library.rename(folder / "Library")
    return library.parent


@pytest.mark.parametrize(
    "arrange",
    [
        _same,
        _server,
        _link_to_library,
        _link_to_server,
        _folder_around,
        _server_below_library,
        _database_elsewhere,
        _not_utf_8,
    ],
)
def test_any_layout(
    new_agent: Callable[[Path], Agent],
    library: Path,
    target: Path,
    tmp_path: Path,
    arrange: Callable[[Path], Path],
) -> None:
    """However the library is called and reached, its open databases are found."""
    agent = new_agent(arrange(library))
    puller = Puller(target, tmp_path / "puller.log", agent.pair())
    agent.start()
    (database,) = (each for each in agent.library.parent.rglob(DATABASES[0]))
    with opened(database):
        refused = puller.pull()
        assert refused.code == 16, refused.text
        assert database.resolve().name in refused.reason()
    assert puller.pull().code == 0


@pytest.mark.parametrize("name", ["com.plexapp.dlna.db", "com.plexapp.plugins.library.blobs.db"])
def test_any_database_of_plex(agent: Agent, puller: Puller, library: Path, name: str) -> None:
    """Helpers of Plex have databases of their own beside the library's."""
    database = library / SERVER / BELOW_SERVER / name
    with closing(sqlite3.connect(database)) as made:
        made.execute("CREATE TABLE IF NOT EXISTS ours (id INTEGER)")
    with opened(database):
        assert puller.pull().code == 16
        assert agent.frames_asked() == []


def test_excluded_side_files(puller: Puller, library: Path) -> None:
    """Patterns hide files from the move, and not a running Plex from the agent."""
    with opened(library / SERVER / BELOW_SERVER / DATABASES[0]):
        assert puller.pull("--exclude", "*.db-wal", "--exclude", "*.db-shm").code == 16


def test_damaged_record_of_a_cutover(agent: Agent, puller: Puller) -> None:
    """Nobody knows whether the agent is about to start Plex: the message says what to do."""
    record = agent.state / "cutover.json"
    record.write_bytes(b"damaged")
    refused = puller.pull()
    assert refused.code == 15, refused.text
    assert str(record) in refused.reason()
    assert agent.frames_asked() == []
    record.unlink()
    assert puller.pull().code == 0


def test_side_file_that_is_a_fifo_is_left_to_the_preflight(puller: Puller, library: Path) -> None:
    """Nothing waits for it, and the message is the one that says what to do."""
    os.mkfifo(library / SERVER / BELOW_SERVER / f"{DATABASES[0]}-shm")
    refused = puller.pull()
    assert refused.code == 12, refused.text
    assert "not a regular file" in refused.reason()


def test_own_check_that_outlives_plex_is_waited_for(
    agent: Agent, puller: Puller, library: Path
) -> None:
    """The agent's check has the database open as Plex had. It is not taken for Plex."""
    database = library / SERVER / BELOW_SERVER / DATABASES[0]
    with ThreadPoolExecutor(2) as workers:
        with opened(database) as plex:
            checked, frozen = frozen_check(agent, workers, database, plex.pid)
        try:
            pulled = workers.submit(puller.pull)
            wait_until(lambda: puller.log.exists() and "scanning" in puller.log.read_text())
            time.sleep(1)
            assert not pulled.done()
        finally:
            os.kill(frozen, signal.SIGCONT)
        done = pulled.result()
    assert done.code == 0, done.text
    assert checked.done()


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


_ASK = """
import os, sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], uri=True)
connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
while not os.path.exists(os.path.join(os.path.dirname(sys.argv[0]), "end")):
    time.sleep(0.01)
print("ok", flush=True)
os._exit(0)
"""


CHECKS: dict[str, Callable[[str, str], object]] = {
    "ours": lambda database, _: query(database, [_SLOW]),
    "Plex SQLite": lambda database, program: check_database(database, plex_sqlite=program),
}


@pytest.mark.parametrize("program", CHECKS)
def test_own_checks_are_not_taken_for_plex(library: Path, tmp_path: Path, program: str) -> None:
    """A check that began while Plex ran outlives it, and is known as our own."""
    database = library / SERVER / BELOW_SERVER / DATABASES[0]
    slow = tmp_path / "Plex SQLite"
    slow.write_text(f"#!{sys.executable}\n{_ASK}")
    slow.chmod(0o755)
    with ThreadPoolExecutor(1) as workers:
        with opened(database):
            ended = workers.submit(CHECKS[program], str(database), str(slow))
            wait_until(lambda: len(lock_holders(database)) == 2)
            assert find_use(str(database)) is Use.OTHERS
        assert find_use(str(database)) is Use.OURS
        (tmp_path / "end").touch()
        ended.result()
    assert find_use(str(database)) is Use.NONE
