"""A trial of what Plex's databases need of a volume: locks, and SQLite's write-ahead log.

Two processes use one database in WAL mode, which maps a file of shared memory
(https://sqlite.org/wal.html, section 6). Calls on a network filesystem may never return, so all of
this is in processes that can be killed. Run as a module, with a folder on the volume as its
argument, it exits with a :class:`Verdict`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from enum import IntEnum

_SECONDS = 120.0
"""Time for the whole trial. It takes a fraction of a second where locks work, but an NFS 4 server
grants none for 90 seconds after its start (RFC 8881, section 8.4.2.1)."""
_GRACE_SECONDS = 1.0
_NAME = "trial.db"
_BUSY_SECONDS = 5.0
_ENOUGH = 1 << 20
"""Bytes that the trial takes, at most. SQLite has several errors for a volume with less."""


class Verdict(IntEnum):
    """The exit code of the trial."""

    WORKS = 0
    NO_FLOCK = 3
    NO_FCNTL = 4
    NO_WAL = 5
    NOT_SHARED = 6
    NOT_EXCLUSIVE = 7
    HANGS = 8
    FULL = 9
    NOT_TRIED = 10


WHAT = {
    Verdict.NO_FLOCK: "files cannot be locked with flock",
    Verdict.NO_FCNTL: "files cannot be locked with fcntl",
    Verdict.NO_WAL: "SQLite cannot use a write-ahead log, as Plex's databases do",
    Verdict.NOT_SHARED: "a process does not see what another one wrote into a database",
    Verdict.NOT_EXCLUSIVE: "two processes can write into one database at the same time",
    Verdict.HANGS: f"a lock, or a database, does not answer within {_SECONDS:.0f} s",
}
"""The meaning of each verdict that speaks against a volume."""


def try_database(folder: str) -> Verdict:
    """Return what a trial in ``folder``, which is on the volume, has found."""
    command = [sys.executable, "-P", "-m", __spec__.name, folder]
    try:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:
        return Verdict.NOT_TRIED
    try:
        return Verdict(process.wait(_SECONDS))
    except subprocess.TimeoutExpired:
        return Verdict.HANGS
    except ValueError:
        return Verdict.NO_WAL
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # one that waits for a server ends later
            process.wait(_GRACE_SECONDS)


def main() -> int:
    """Run the trial in the folder that the command line names."""
    [folder] = sys.argv[1:]
    verdict = _try(os.path.join(folder, _NAME))
    about = os.statvfs(folder)
    is_full = about.f_bavail * about.f_frsize < _ENOUGH
    return Verdict.FULL if verdict and is_full else verdict


def _try(path: str) -> Verdict:
    with open(path, "wb") as file:
        for lock, verdict in ((fcntl.flock, Verdict.NO_FLOCK), (fcntl.lockf, Verdict.NO_FCNTL)):
            try:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock(file, fcntl.LOCK_UN)  # on NFS, each excludes the other, see flock(2)
            except OSError:
                return verdict
    second = _Second(path)  # before the first connection: SQLite's locks do not survive a fork
    try:
        with closing(sqlite3.connect(path, _BUSY_SECONDS, isolation_level=None)) as database:
            return _share(database, second)
    except sqlite3.Error:
        return Verdict.NO_WAL


def _share(database: sqlite3.Connection, second: _Second) -> Verdict:
    if database.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
        return Verdict.NO_WAL
    database.execute("CREATE TABLE trial (number INTEGER)")
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO trial VALUES (1)")
    if second.write() is not Verdict.NOT_EXCLUSIVE:  # it could write, though we do
        return Verdict.NOT_EXCLUSIVE
    database.execute("COMMIT")
    verdict = second.write()
    total = database.execute("SELECT sum(number) FROM trial").fetchone()
    return Verdict.NOT_SHARED if verdict is Verdict.WORKS and total != (3,) else verdict


class _Second:
    """A second process, which ends with the first one."""

    def __init__(self, path: str) -> None:
        (orders, self._orders), (self._answers, answers) = os.pipe(), os.pipe()
        if os.fork() == 0:
            os.close(self._orders)
            while os.read(orders, 1):
                try:
                    verdict = write_row(path)
                except sqlite3.Error:
                    verdict = Verdict.NO_WAL
                os.write(answers, bytes([verdict]))
            os._exit(0)
        os.close(orders)
        os.close(answers)

    def write(self) -> Verdict:
        """Have it write a row, and return what it has found."""
        os.write(self._orders, b"1")
        return Verdict(os.read(self._answers, 1)[0])


def write_row(path: str) -> Verdict:
    """Write a row; return NOT_EXCLUSIVE if another process is writing, as it should."""
    with closing(sqlite3.connect(path, 0, isolation_level=None)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return Verdict.NOT_EXCLUSIVE
        seen = database.execute("SELECT number FROM trial").fetchall()
        database.execute("INSERT INTO trial VALUES (2)")
        database.execute("COMMIT")
    return Verdict.WORKS if seen == [(1,)] else Verdict.NOT_SHARED


if __name__ == "__main__":
    sys.exit(main())
