"""Files replaced by FIFOs that block a reader, or by symlinks to elsewhere."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from rig.programs import clean_environment

from agent.source import database_copies
from agent.source.database_copies import copy_databases
from agent.source.library import open_library
from bench.plexlibrary import LibraryShape, make_library
from shared.errors import SourceUnreadable
from shared.plex import sqlite_query
from shared.plex.sqlite_query import DatabaseError, back_up
from shared.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER = Path("Application Support/Plex Media Server")
DATABASES = SERVER / "Plug-in Support/Databases"
NAME = "com.plexapp.plugins.library.db"
FILES = {
    "database": DATABASES / NAME,
    "wal": DATABASES / f"{NAME}-wal",
    "shm": DATABASES / f"{NAME}-shm",
    "journal": DATABASES / f"{NAME}-journal",
    "preferences": SERVER / "Preferences.xml",
    "log": SERVER / "Logs/Plex Media Server.log",
}
AGENT = Path(sys.executable).parent / "plexodus-agent"
LOOK = (
    "import sys; from initpuller.volume.foreign_library import check_wholeness;"
    " print(check_wholeness(sys.argv[1]).missing)"
)
SECONDS = 100
"""What nothing here takes, unless it waits for ever."""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a small sound library of Plex."""
    library = tmp_path / "vm" / "Library"
    make_library(library, LibraryShape(300, 8_000_000, 2_000_000))
    return library


def make_database(path: Path, content: str) -> None:
    """Make a database in WAL mode, without a -wal, that holds ``content``."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (?)", (content,))
        database.commit()


@pytest.mark.parametrize("name", FILES)
def test_fifo_does_not_hang_preflight(library: Path, name: str) -> None:
    """A FIFO in place of a file ends in a failed check, not in a hang."""
    path = library / FILES[name]
    path.unlink(missing_ok=True)
    if name == "shm":  # it is looked at where there is a -wal
        path.with_name(f"{NAME}-wal").write_bytes(b"x")
    os.mkfifo(path)
    done = subprocess.run(
        [AGENT, "preflight", "--library", library],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=clean_environment(),
    )
    assert "Traceback" not in done.stderr, done.stderr
    if name != "log":
        assert done.returncode == 12, done.stdout + done.stderr
    if name not in {"log", "database"}:
        assert "is not a regular file" in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", FILES)
def test_fifo_does_not_hang_the_puller(library: Path, name: str) -> None:
    """A FIFO in a library on the volume does not block the puller."""
    path = library / FILES[name]
    path.unlink(missing_ok=True)
    if name == "shm":
        path.with_name(f"{NAME}-wal").write_bytes(b"x")
    os.mkfifo(path)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, library],
        check=True,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.stdout.strip() == "[]") == (name == "log")


def copied(library: Path, place: Path) -> set[bytes]:
    """Copy the library's databases as a rehearsal does, and return their content joined."""
    place.mkdir()
    source = open_library(str(library))
    with source.opened() as base:
        copy_databases(str(place), source, base, ())
    return {path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_symlink_in_the_place_of_a_database(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A symlink swapped in fails the scan, and nothing from outside is copied."""
    make_database(tmp_path / "outside.db", "secret of another")
    database = library / FILES["database"]

    def swapped(*asked: Any) -> None:  # noqa: ANN401 - whatever it takes
        if database.name in map(os.fsdecode, filter(is_name, asked)):
            database.unlink()
            database.symlink_to(tmp_path / "outside.db")
        back_up(*asked)

    monkeypatch.setattr(database_copies, "back_up", swapped)
    with pytest.raises(SourceUnreadable) as caught:
        copied(library, tmp_path / "copies")
    assert [path.partition(" (")[0] for path in caught.value.paths] == [
        f"Library/{FILES['database']}"
    ]
    copies = [path.read_bytes() for path in (tmp_path / "copies").rglob("*") if path.is_file()]
    assert not any(b"secret of another" in copy for copy in copies)


def is_name(asked: object) -> bool:
    """Return whether it is a name, not a descriptor."""
    return isinstance(asked, str | bytes)


def _swap_folder(library: Path, outside: Path) -> None:
    folder = library / DATABASES
    folder.rename(folder.with_name("away"))
    folder.symlink_to(outside)


def _swap_wal(library: Path, outside: Path) -> None:
    wal = library / FILES["wal"]
    wal.unlink(missing_ok=True)
    wal.symlink_to(outside / f"{NAME}-wal")


@pytest.mark.parametrize("swap", [_swap_folder, _swap_wal])
def test_swapped_while_sqlite_opens_it(
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    swap: Callable[[Path, Path], None],
) -> None:
    """A file swapped while SQLite opens it by path is noticed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with closing(sqlite3.connect(outside / NAME)) as foreign:
        foreign.execute("PRAGMA journal_mode = WAL")
        foreign.execute("CREATE TABLE t AS SELECT 'secret of another' AS x")
        foreign.commit()
        shutil.copytree(library / DATABASES, tmp_path / "kept")
        folder = os.open(library / DATABASES, os.O_RDONLY | os.O_DIRECTORY)
        ask = sqlite_query._ask
        resolved = os.path.realpath(library / DATABASES / NAME)

        def swapped(asked: dict[str, Any], *more: Any) -> bytes:  # noqa: ANN401
            swap(library, outside)
            # SQLite resolves a descriptor's path to the text of its earlier place.
            asked["uri"] = f"file:{quote(resolved)}?mode=ro"
            return ask(asked, *more)

        monkeypatch.setattr(sqlite_query, "_ask", swapped)
        try:
            back_up(folder, NAME.encode(), str(tmp_path / "copy"))
        except DatabaseError:
            pass
        finally:
            os.close(folder)
        copy = tmp_path / "copy"
        assert not copy.exists() or b"secret of another" not in copy.read_bytes()


def test_databases_are_copied_as_before(library: Path, tmp_path: Path) -> None:
    """Databases are copied under any name, in use or not, with the -wal's content."""
    odd = library / DATABASES / os.fsdecode(b"odd ?#%41 \xff.db")
    with closing(sqlite3.connect(os.fsencode(odd))) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t AS SELECT 'in the wal' AS x")
        database.commit()
        copies = copied(library, tmp_path / "copies")
    assert any(b"in the wal" in copy for copy in copies)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A FIFO, a folder, a device and a symlink are refused without being opened."""
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "link to a fifo").symlink_to("fifo")
    for name in ("fifo", "link", "link to a fifo", "."):
        with pytest.raises(OSError, match="is not a regular file"):
            open_regular(str(tmp_path / name))
    for name in ("fifo", "link to a fifo", "/dev/zero"):
        with pytest.raises(OSError, match="is not a regular file"):
            open_regular(str(tmp_path / name), follow_symlinks=True)
    for name, follow in (("file", False), ("link", True)):
        with os.fdopen(open_regular(str(tmp_path / name), follow_symlinks=follow), "rb") as file:
            assert file.read() == b"content"
