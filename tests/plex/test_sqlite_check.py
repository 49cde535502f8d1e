"""Plex's databases: healthy ones pass, ten damages are reported, and nothing beside them changes.

On the SQLite that Python has and on the newest; both lack what is Plex's own.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pysqlite3
import pytest
from rig.unprivileged import open_place

from bench.plexdatabase import BLOBS, LIBRARY, DatabaseShape, make_databases
from shared.plex.sqlite_check import DatabaseCheck, Soundness, check_database
from shared.plex.sqlite_query import Use, find_use, query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOTH = pytest.mark.parametrize("sqlite", ["sqlite3", "pysqlite3"])
NOT_PLEX = "/no/such/program"
PENDING_BYTE = 1 << 30
"""Of a database: readers lock it to get in (https://sqlite.org/lockingv3.html, "3.0")."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Databases after a clean stop, of another server, and with a -wal that a crash left."""
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(("stopped", "another")):
        (folder / name).mkdir()
        make_databases(folder / name, DatabaseShape(3_000_000, seed=seed + 1))
    (folder / "crashed").mkdir()
    make_databases(folder / "crashed", DatabaseShape(3_000_000), leave_wal=True)
    return folder


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the library's database after a clean stop."""
    (tmp_path / "db").mkdir()
    return Path(shutil.copy(made / "stopped" / LIBRARY, tmp_path / "db"))


@pytest.fixture
def crashed(made: Path, tmp_path: Path) -> Path:
    """Return the same with its newest rows in a -wal, and the -shm of dead processes."""
    shutil.copytree(made / "crashed", tmp_path / "crashed")
    return tmp_path / "crashed" / LIBRARY


def contents(folder: Path) -> dict[str, bytes]:
    """Return the digest of each file."""
    return {path.name: sha256(path.read_bytes()).digest() for path in folder.iterdir()}


def findings(path: Path, sqlite: str = "sqlite3") -> list[str]:
    """Return the findings; assert that nothing beside the database changes."""
    before = contents(path.parent)
    found = check_database(str(path), module=sqlite, plex_sqlite=NOT_PLEX)
    assert contents(path.parent) == before
    assert found.not_checked == ""
    return found.damage


def rows(path: Path) -> int:
    """Return the rows of the watch history, as the check counts them."""
    [[[count]]] = query(str(path), ["SELECT count(*) FROM metadata_item_views"])
    return int(count)


def test_newest_is_newer() -> None:
    """The two SQLite versions differ, because otherwise the tests would run twice on one."""
    assert sqlite3.sqlite_version_info < pysqlite3.sqlite_version_info


@BOTH
@pytest.mark.parametrize("name", [LIBRARY, BLOBS])
def test_healthy_database_passes(made: Path, sqlite: str, name: str) -> None:
    """A healthy database passes, although a plain integrity_check fails on it."""
    assert findings(made / "stopped" / name, sqlite) == []
    module = {"sqlite3": sqlite3, "pysqlite3": pysqlite3}[sqlite]
    with closing(module.connect(f"file:{made / 'stopped' / name}?immutable=1", uri=True)) as plain:
        try:
            said = plain.execute("PRAGMA integrity_check").fetchall()
        except module.DatabaseError as error:
            said = [(str(error),)]
    assert said != [("ok",)]


@BOTH
@pytest.mark.parametrize("has_shm", [True, False])
def test_wal_that_a_crash_left_is_read(
    crashed: Path,
    made: Path,
    sqlite: str,
    *,
    has_shm: bool,
) -> None:
    """The rows of a -wal count, and it is not changed, with or without a -shm."""
    if not has_shm:
        crashed.with_name(f"{LIBRARY}-shm").unlink()
    before = contents(crashed.parent)
    assert findings(crashed, sqlite) == []
    with_wal = rows(crashed)
    assert contents(crashed.parent) == before
    crashed.with_name(f"{LIBRARY}-wal").unlink()
    assert rows(crashed) < with_wal


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a filesystem")
def test_read_only_filesystem(crashed: Path) -> None:
    """A database on a read-only filesystem is checked, as in the agent's sandbox."""
    crashed.with_name(f"{LIBRARY}-shm").unlink()
    folder = crashed.parent
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    try:
        assert findings(crashed) == []
        assert rows(crashed) > 0
    finally:
        subprocess.run(["umount", folder], check=True)


def truncated(path: Path) -> None:
    """Cut off the last third."""
    os.truncate(path, path.stat().st_size * 2 // 3)


def garbage_page(path: Path) -> None:
    """Overwrite one page in the middle."""
    with path.open("r+b") as file:
        file.seek(4096 * 100)
        file.write(os.urandom(4096))


def bad_header(path: Path) -> None:
    """Overwrite the beginning of the first page with zeros."""
    with path.open("r+b") as file:
        file.write(bytes(100))


def foreign_file(path: Path) -> None:
    """Put a picture under the database's name."""
    path.write_bytes(b"\xff\xd8\xff\xe0" + os.urandom(100_000))


def zero_length(path: Path) -> None:
    """Truncate the file to nothing."""
    os.truncate(path, 0)


def index_damage(path: Path) -> None:
    """Remove ten rows from an index."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (name, sql) = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE name = 'index_taggings_on_tag_id'"
        ).fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET name = 'x', tbl_name = 'x', type = 'x',"
                           " sql = NULL WHERE name = ?", (name,))  # fmt: skip
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM taggings WHERE id IN (SELECT id FROM taggings LIMIT 10)")
        connection.execute("UPDATE sqlite_master SET name = ?, tbl_name = 'taggings',"
                           " type = 'index', sql = ? WHERE name = 'x'", (name, sql))  # fmt: skip


DAMAGES: dict[Callable[[Path], None], str] = {
    truncated: "",
    garbage_page: "",
    bad_header: "is not a SQLite database",
    foreign_file: "is not a SQLite database",
    zero_length: "is empty",
    index_damage: "index_taggings_on_tag_id",
}


@BOTH
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_told(database: Path, damage: Callable[[Path], None], sqlite: str) -> None:
    """Each damage is named, in at most a page of text."""
    damage(database)
    found = findings(database, sqlite)
    assert found
    assert DAMAGES[damage] in found[0]
    assert len(found) <= 20


@BOTH
def test_torn_wal_is_no_damage(crashed: Path, sqlite: str) -> None:
    """A -wal torn by a power loss passes with everything committed before."""
    wal = crashed.with_name(f"{LIBRARY}-wal")
    os.truncate(wal, wal.stat().st_size - 1000)
    assert findings(crashed, sqlite) == []


@BOTH
def test_stale_wal_is_told(made: Path, crashed: Path, sqlite: str) -> None:
    """The -wal of another database is reported, because SQLite would replay it."""
    shutil.copy(made / "another" / LIBRARY, crashed)
    assert findings(crashed, sqlite)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@BOTH
def test_wrong_permission_is_told(made: Path, sqlite: str) -> None:
    """An unreadable database is reported."""
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:3];"
        "from shared.plex.sqlite_check import check_database;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        ""
        "print(check_database(sys.argv[3], module=sys.argv[4], plex_sqlite='/no/such'))"
    )
    with open_place() as place:
        shutil.copy(made / "stopped" / LIBRARY, place)
        (place / LIBRARY).chmod(0o600)
        said = subprocess.run(
            [sys.executable, "-c", code, *sys.path[:2], place / LIBRARY, sqlite],
            check=True,
            capture_output=True,
            text=True,
        )
    assert "Permission denied" in said.stdout


_WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("INSERT INTO accounts(id, name) VALUES (77, 'committed')")
connection.execute("BEGIN IMMEDIATE")
connection.execute("INSERT INTO accounts(id, name) VALUES (78, 'not yet')")
print("writing", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writing(database: Path) -> Iterator[None]:
    """Run a process that is in the middle of a transaction."""
    command = [sys.executable, "-c", _WRITE, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        assert find_use(str(database)) is Use.OTHERS
        yield
    assert find_use(str(database)) is Use.NONE


@BOTH
@pytest.mark.usefixtures("writing")
def test_locked_by_a_writer(database: Path, sqlite: str) -> None:
    """A database with a writer is checked with what is committed, without waiting."""
    before = set(contents(database.parent))
    assert check_database(str(database), module=sqlite, plex_sqlite=NOT_PLEX) == Soundness()
    assert query(str(database), ["SELECT id FROM accounts WHERE id > 70"], sqlite) == [[[77]]]
    assert set(contents(database.parent)) == before


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Write a Plex SQLite program that finds no fault."""
    path = tmp_path / "Plex SQLite"
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/asked\necho ok\n')
    path.chmod(0o755)
    return path


def test_plex_sqlite_makes_the_check(database: Path, crashed: Path, program: Path) -> None:
    """Plex's SQLite decides if installed, but is not run beside a leftover -wal."""
    index_damage(database)
    assert check_database(str(database), plex_sqlite=str(program)).damage == []
    assert "immutable=1" in program.with_name("asked").read_text()
    program.write_text('#!/bin/sh\necho "*** in database main ***"\necho "row 5 missing"\n')
    found = check_database(str(database), plex_sqlite=str(program))
    assert found.damage[-1] == "row 5 missing"
    assert check_database(str(crashed), plex_sqlite=str(program)).damage == []


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/sh\nkill -SEGV $$\n",
        "#!/no/such/interpreter\n",
        "#!/bin/sh\necho locked >&2; exit 5",
    ],
)
def test_plex_sqlite_that_fails_is_replaced(database: Path, program: Path, script: str) -> None:
    """A program that crashes, cannot start or finds a lock is no damage; our SQLite checks."""
    program.write_text(script)
    assert check_database(str(database), plex_sqlite=str(program)) == Soundness()
    index_damage(database)
    assert check_database(str(database), plex_sqlite=str(program)).damage


def test_slow_plex_sqlite_is_no_damage(
    database: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that does not end in its time is reported as not made."""
    monkeypatch.setattr("shared.plex.sqlite_query._SECONDS", 0.2)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    found = check_database(str(database), plex_sqlite=str(program))
    assert found.damage == []
    assert "did not finish" in found.not_checked


def test_slow_check_is_no_damage(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with our own SQLite."""
    monkeypatch.setattr("shared.plex.sqlite_query._SECONDS", 0.01)
    found = check_database(str(database), plex_sqlite=NOT_PLEX)
    assert found.damage == []
    assert "did not finish" in found.not_checked


_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))
    print("locked", flush=True)
    sys.stdin.read()
"""


@BOTH
@pytest.mark.usefixtures("writing")
def test_locked_database_is_no_damage(database: Path, sqlite: str) -> None:
    """A process that lets no new reader in keeps the check from an answer."""
    command = [sys.executable, "-c", _LOCK, str(database), str(PENDING_BYTE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        found = check_database(str(database), module=sqlite, plex_sqlite=NOT_PLEX)
    assert found == Soundness(not_checked="database is locked")


def test_depth_of_the_check(database: Path) -> None:
    """A quick check says what it left out; a skipped one looks at the header only."""
    index_damage(database)
    quick = check_database(str(database), DatabaseCheck.QUICK, plex_sqlite=NOT_PLEX)
    assert quick.damage == []
    assert quick.caveats
    skipped = check_database(str(database), DatabaseCheck.SKIP, plex_sqlite=NOT_PLEX)
    assert "skipped" in skipped.not_checked
    zero_length(database)
    assert check_database(str(database), DatabaseCheck.SKIP).damage == ["is empty"]


@pytest.mark.skipif(os.geteuid() != 0, reason="SQLite leaves owners alone unless it is root")
@BOTH
def test_reading_is_no_change_for_a_scan(crashed: Path, sqlite: str) -> None:
    """Not even a ctime is new, by which files count as changed."""
    before = {path.name: path.stat().st_ctime_ns for path in crashed.parent.iterdir()}
    assert findings(crashed, sqlite) == []
    assert {path.name: path.stat().st_ctime_ns for path in crashed.parent.iterdir()} == before
