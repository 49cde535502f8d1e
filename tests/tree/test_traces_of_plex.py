"""A Plex that has run since a scan is known by what it has changed, also if it wrote nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from rig.cutover.library import DATABASE, SERVER, make_library

from agent.snapshots.store import SnapshotStore
from agent.source.library import CurrentLibrary
from shared.errors import SnapshotGone
from shared.wire.protocol import SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CRASHES = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("INSERT INTO library_sections VALUES (2, 'Shows', 2)")
os._exit(0)
"""


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Return Plex's own folder in a library whose database is in WAL mode, as Plex's is."""
    make_library(tmp_path)
    server = tmp_path / SERVER
    with closing(sqlite3.connect(server / DATABASE)) as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    return server


@pytest.fixture
def store(tmp_path: Path, server: Path) -> SnapshotStore:
    """Return the snapshots of that library."""
    assert server.is_dir()
    (state := tmp_path / "state").mkdir()
    library = CurrentLibrary(str(tmp_path / "Library"), str, str(state))
    return SnapshotStore(str(state), library)


def nothing(_server: Path) -> None:
    """Leave the library alone."""


def is_read(server: Path) -> None:
    """Read all files, as a backup does."""
    for path in server.rglob("*"):
        if path.is_file():
            path.read_bytes()


def opens_its_database(server: Path) -> None:
    """Open and close the database without a write."""
    with closing(sqlite3.connect(server / DATABASE)) as connection:
        connection.execute("SELECT count(*) FROM library_sections").fetchone()


def writes(server: Path) -> None:
    """Write a row, and stop cleanly."""
    with closing(sqlite3.connect(server / DATABASE)) as connection, connection:
        connection.execute("INSERT INTO library_sections VALUES (2, 'Shows', 2)")


def crashes(server: Path) -> None:
    """Write a row, and leave it in the -wal."""
    subprocess.run([sys.executable, "-c", _CRASHES, server / DATABASE], check=True)


def makes_its_pid_file(server: Path) -> None:
    """Make and remove the file that the server holds while it runs."""
    (server / "plexmediaserver.pid").write_text("1")
    (server / "plexmediaserver.pid").unlink()


def hides_its_write(server: Path) -> None:
    """Write into the database, and set its old times again."""
    database = server / DATABASE
    times = database.stat()
    writes(server)
    for path in (database, database.parent):
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("quiet", [nothing, is_read])
def test_library_that_no_plex_has_used(
    store: SnapshotStore, server: Path, quiet: Callable[[Path], None]
) -> None:
    """Readers leave no trace that would end a cutover."""
    snapshot = store.scan(SnapshotRequest("cold"))
    quiet(server)
    assert not store.has_been_used(snapshot.id)


@pytest.mark.parametrize(
    "run", [opens_its_database, writes, crashes, makes_its_pid_file, hides_its_write]
)
@pytest.mark.parametrize("crashed_before", [False, True])
def test_plex_that_has_run_since_the_scan(
    store: SnapshotStore, server: Path, run: Callable[[Path], None], *, crashed_before: bool
) -> None:
    """Each way to run leaves a trace, also in a library with a -wal of an earlier crash."""
    if crashed_before:
        crashes(server)
    snapshot = store.scan(SnapshotRequest("cold"))
    run(server)
    assert store.has_been_used(snapshot.id)


def test_snapshot_that_is_gone(store: SnapshotStore) -> None:
    """A missing snapshot is an error, and not an answer."""
    with pytest.raises(SnapshotGone):
        store.has_been_used("0" * 64)
