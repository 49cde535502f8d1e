"""The users of a database: a ``-shm`` that no SQLite can use hides nobody, and stops no move."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from shared.plex.sqlite_query import Use, find_use

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return a database in WAL mode, which nobody has open."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE a (b)")
    return path


def fifo(side: Path) -> None:
    """Make what blocks whoever opens it."""
    os.mkfifo(side)


def folder(side: Path) -> None:
    """Make a folder in its place."""
    side.mkdir()


def loop(side: Path) -> None:
    """Make a symlink to itself."""
    side.symlink_to(side)


def below_a_file(side: Path) -> None:
    """Make a symlink whose target cannot be there."""
    side.symlink_to(side.with_name("a.db") / "side")


def long_name(side: Path) -> None:
    """Make a symlink to a name that no filesystem has."""
    side.symlink_to("n" * 300)


@pytest.mark.parametrize("make", [fifo, folder, loop, below_a_file, long_name])
def test_side_file_that_no_sqlite_can_open(database: Path, make: Callable[[Path], None]) -> None:
    """SQLite itself cannot open the database then, so nobody has it open."""
    make(database.with_name("a.db-shm"))
    with closing(sqlite3.connect(database)) as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute("INSERT INTO a VALUES (1)")
    assert find_use(str(database)) is Use.NONE


@pytest.fixture
def fail_locks(database: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have the filesystem answer questions about locks with an error from now on."""
    database.with_name("a.db-shm").touch()

    def fail(number: int) -> None:
        def fcntl_of_it(*_: object) -> bytes:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "fcntl", fcntl_of_it)

    return fail


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_filesystem_without_locks(
    database: Path, fail_locks: Callable[[int], None], number: int
) -> None:
    """SQLite asks the same before it opens a database there, so nobody has it open."""
    fail_locks(number)
    assert find_use(str(database)) is Use.NONE


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO, errno.ESTALE, errno.EACCES])
def test_locks_that_cannot_be_read_prove_nothing(
    database: Path, fail_locks: Callable[[int], None], number: int
) -> None:
    """The error is reported, because a process may have the database open."""
    fail_locks(number)
    with pytest.raises(OSError, match=os.strerror(number)):
        find_use(str(database))
