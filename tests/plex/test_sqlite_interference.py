"""Checks of a database beside a Plex that starts, stops or writes: none of that counts as damage.

The check pauses in the middle, and another process changes the database meanwhile.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.plex.reader import opened
from rig.waiting import wait_until

from shared.plex.sqlite_check import Soundness, check_database
from shared.plex.sqlite_query import Use, back_up, find_use, query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOT_PLEX = "/no/such/program"
_MODULE = "paused_sqlite"
_PAUSED = """
import os, sqlite3, time
from sqlite3 import *

here, steps = os.path.dirname(__file__), 0

def connect(*args, **options):
    connection = sqlite3.connect(*args, **options)
    def pause():
        global steps
        steps += 1
        if steps == 20:
            with open(os.path.join(here, "reading"), "a") as file:
                file.write(args[0] + "\\n")
            go = os.path.join(here, f"go{sum(1 for _ in open(os.path.join(here, 'reading')))}")
            while not os.path.exists(go):
                time.sleep(0.01)
    connection.set_progress_handler(pause, 500)
    return connection
"""
"""A SQLite module whose queries pause until a file says that they may continue."""
_PLEX_SQLITE = """\
#!{python}
import sys
sys.path.insert(0, {here!r})
import paused_sqlite
connection = paused_sqlite.connect(sys.argv[1], uri=True)
try:
    for (line,) in connection.execute(sys.argv[2]):
        print(line)
except paused_sqlite.DatabaseError as error:
    print(error)
"""
_CHANGE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("DELETE FROM t WHERE number % 3")
connection.execute("VACUUM")
connection.execute("INSERT INTO t SELECT number + 100000, randomblob(300), name || 'new' FROM t")
connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
print("changed", flush=True)
sys.stdin.read()
connection.close()
"""
_SPILL = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.execute("DELETE FROM t WHERE number % 3")
connection.execute("INSERT INTO t SELECT number + 100000, randomblob(300), name || 'new' FROM t")
print("writing", flush=True)
sys.stdin.read()
os._exit(0)
"""
_CHECK = """
import sys
from shared.plex.sqlite_check import check_database
check_database(sys.argv[1], module=sys.argv[2], plex_sqlite=sys.argv[3])
"""


class PausedCheck:
    """A check of the database that pauses, and a program in the place of Plex's SQLite."""

    def __init__(self, here: Path) -> None:
        self._here = here
        (here / f"{_MODULE}.py").write_text(_PAUSED)
        self.program = here / "Plex SQLite"
        self.program.write_text(_PLEX_SQLITE.format(python=sys.executable, here=str(here)))
        self.program.chmod(0o755)

    def addresses(self) -> list[str]:
        """Return the address of each query that has reached its pause."""
        path = self._here / "reading"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def wait(self, queries: int) -> None:
        """Wait until so many queries have reached their pause."""
        wait_until(lambda: len(self.addresses()) == queries)

    def resume(self, query: int) -> None:
        """Let a query continue, by its number from 1."""
        (self._here / f"go{query}").touch()


@pytest.fixture
def paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PausedCheck:
    """Return a check that pauses."""
    (tmp_path / "check").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "check"))
    return PausedCheck(tmp_path / "check")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return a healthy database in WAL mode that no process has open."""
    (tmp_path / "databases").mkdir()
    path = tmp_path / "databases" / "library.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (number INTEGER PRIMARY KEY, content, name)")
        connection.execute("CREATE INDEX names ON t (name)")
        rows = ((number, os.urandom(300), f"name {number * 7919}") for number in range(6000))
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        connection.commit()
    assert not path.with_name("library.db-wal").exists()
    return path


@contextmanager
def program(text: str, database: Path, said: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on the database until the block ends; wait until it has ``said`` a line."""
    command = [sys.executable, "-c", text, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == said
        yield process


def check(path: Path, paused: PausedCheck, which: str) -> Soundness:
    """Check the database with our SQLite or with Plex's."""
    if which == "ours":
        return check_database(str(path), module=_MODULE, plex_sqlite=NOT_PLEX)
    return check_database(str(path), plex_sqlite=str(paused.program))


BOTH = pytest.mark.parametrize("which", ["ours", "Plex's"])


@BOTH
def test_plex_that_starts_during_a_check_is_no_damage(
    database: Path, paused: PausedCheck, which: str
) -> None:
    """A check that began without locks is repeated with locks; the database is healthy."""
    with ThreadPoolExecutor(1) as workers:
        checked = workers.submit(check, database, paused, which)
        paused.wait(1)
        with program(_CHANGE, database, b"changed\n"):
            paused.resume(1)
            paused.resume(2)
            assert checked.result() == Soundness()
    first, second = paused.addresses()
    assert "immutable=1" in first
    assert second.endswith("?mode=ro")


@BOTH
def test_plex_that_starts_and_stops_during_each_check_is_no_damage(
    database: Path, paused: PausedCheck, which: str
) -> None:
    """A database that changes during both attempts counts as not checked."""
    with ThreadPoolExecutor(1) as workers:
        checked = workers.submit(check, database, paused, which)
        for attempt in (1, 2):
            paused.wait(attempt)
            with program(_CHANGE, database, b"changed\n"):
                pass
            paused.resume(attempt)
        found = checked.result()
    assert found.damage == []
    assert "another program changed the database" in found.not_checked


def test_wal_of_a_crash_that_a_started_plex_takes_is_no_damage(
    database: Path, paused: PausedCheck
) -> None:
    """A Plex that starts on the -wal of a crash changes both files under the check."""
    with program(_CHANGE, database, b"changed\n") as crashed:
        crashed.kill()
    with ThreadPoolExecutor(1) as workers:
        checked = workers.submit(check, database, paused, "ours")
        paused.wait(1)
        with program(_CHANGE, database, b"changed\n"):
            paused.resume(1)
            paused.resume(2)
            assert checked.result() == Soundness()
    first, second = paused.addresses()
    assert "unix-none" in first
    assert second.endswith("?mode=ro")


def test_undisturbed_database_is_read_once(database: Path, paused: PausedCheck) -> None:
    """A database that nobody touches is checked once."""
    paused.resume(1)
    assert check(database, paused, "ours") == Soundness()
    assert len(paused.addresses()) == 1


@pytest.fixture
def rollback_mode(database: Path) -> Path:
    """Return the database in rollback mode."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return database


def test_transaction_in_rollback_mode_is_no_damage(rollback_mode: Path) -> None:
    """A check beside a writer that has changed half of the file finds it locked."""
    with program(_SPILL, rollback_mode, b"writing\n"):
        found = check_database(str(rollback_mode), plex_sqlite=NOT_PLEX)
    assert found == Soundness(not_checked="database is locked")


def test_transaction_that_begins_during_a_check_in_rollback_mode_waits(
    rollback_mode: Path, paused: PausedCheck
) -> None:
    """A database in rollback mode is read with locks, so that no writer can change it meanwhile."""
    with ThreadPoolExecutor(1) as workers:
        checked = workers.submit(check, rollback_mode, paused, "ours")
        paused.wait(1)
        with (
            closing(sqlite3.connect(rollback_mode, timeout=0.1)) as plex,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            plex.executescript("DELETE FROM t WHERE number % 3; VACUUM")
        paused.resume(1)
        assert checked.result() == Soundness()


def test_journal_that_a_crash_left_does_not_prevent_the_check(rollback_mode: Path) -> None:
    """A -journal without a process is ignored, because a reader cannot roll it back."""
    journal = rollback_mode.with_name("library.db-journal")
    with closing(sqlite3.connect(rollback_mode, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("UPDATE t SET name = 'x' WHERE number = 1")
        before = journal.read_bytes()
    journal.write_bytes(before)
    assert check_database(str(rollback_mode), plex_sqlite=NOT_PLEX) == Soundness()
    assert journal.read_bytes() == before


def test_copy_that_is_repeated_replaces_the_first(database: Path, tmp_path: Path) -> None:
    """A copy of a database that has changed meanwhile is made again, over the first one."""
    copy = tmp_path / "copy.db"
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        back_up(folder, database.name.encode(), str(copy))
        with program(_CHANGE, database, b"changed\n"):
            back_up(folder, database.name.encode(), str(copy))
    finally:
        os.close(folder)
    assert check_database(str(copy), plex_sqlite=NOT_PLEX) == Soundness()
    assert query(str(copy), ["SELECT count(*) FROM t"]) == [[[4000]]]


CHILDREN: dict[str, Callable[[PausedCheck], tuple[str, str]]] = {
    "ours": lambda _: (_MODULE, NOT_PLEX),
    "Plex's": lambda paused: ("sqlite3", str(paused.program)),
}


@pytest.mark.parametrize("which", CHILDREN)
def test_check_of_a_killed_agent_is_not_taken_for_plex(
    database: Path, paused: PausedCheck, which: str
) -> None:
    """A check ends with the process that asked for it, even if that is killed with SIGKILL."""
    with opened(database):
        command = [sys.executable, "-c", _CHECK, str(database), *CHILDREN[which](paused)]
        with subprocess.Popen(command) as agent:
            paused.wait(1)
            assert _holders(database) != set()
            agent.send_signal(signal.SIGKILL)
    wait_until(lambda: find_use(str(database)) is Use.NONE)


def _holders(database: Path) -> set[str]:
    """Return the processes that have the database open, except this one."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == database and link.parts[2] != str(os.getpid()):
                found.add(link.parts[2])
        except OSError:
            continue
    return found
