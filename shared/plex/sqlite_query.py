"""Queries of a SQLite database of Plex that change neither the database nor the files beside it.

Even a reader can change files (https://sqlite.org/wal.html):

- The first reader creates a ``-shm``.
- A reader that ignores a ``-wal`` misses its content.
- The last connection to close may delete the ``-wal``.

So the way to open a database depends on the files beside it. It is opened in a separate process,
which exits without closing the database: ``python -P -m shared.plex.sqlite_query MODULE``, with the
request as JSON on stdin.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import struct
import subprocess
import sys
from contextlib import closing, suppress
from enum import Enum, auto
from itertools import islice
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec

from shared.plex.fts3_segments import damaged_index
from shared.plex.sqlite_standins import Schema, stand_in
from shared.regular_file import open_regular, require_regular

Row: TypeAlias = list[Any]

_SHM_LOCK = 128
"""The byte of ``-shm`` that every connection locks (https://sqlite.org/walformat.html, 2.3.1)."""
_HEADER, _READ_VERSION, _WAL = 20, 19, b"\2"
"""Position and value of the header byte that shows WAL mode (https://sqlite.org/fileformat.html,
1.3.3)."""
_FLOCK = "hhqqi4x"
_SECONDS = 3600.0
_NOBODY = 65534
_FAILED, _UNANSWERED = 3, 4
_NO_VERDICT = {1, 5, 6, 7, 9, 13, 15}
"""Result codes of SQLite that do not mean damage: ERROR (a name that this SQLite lacks), BUSY,
LOCKED, NOMEM, INTERRUPT, FULL and PROTOCOL (https://sqlite.org/rescode.html)."""
_MOST = 100_000_000
"""Most findings to request. SQLite stops at 100 by default."""
_REPORTED = 20
"""Most findings to report, of those that no stand-in explains."""
_MODULE = "shared.plex.sqlite_query"
_our_pids: set[int] = set()
"""The processes that answer queries of this one."""


class Use(Enum):
    """The processes that have a database open."""

    NONE = auto()
    OURS = auto()
    """A query of this process. Whether there are others, is known when it has ended."""
    OTHERS = auto()


class DatabaseError(Exception):
    """SQLite cannot read a database; the message is SQLite's."""


class Unanswered(DatabaseError):
    """A query failed for a reason that does not mean damage."""


class Inspection(msgspec.Struct, frozen=True):
    """The findings of SQLite in a database."""

    findings: list[str]
    damaged_full_text: dict[str, str]
    """Full-text tables with a damaged index, each with a description of the damage."""
    unchecked_full_text: list[str]
    """Full-text tables whose index cannot be checked without their tokenizer."""
    is_approximate: bool
    """Whether some indexes are sorted or computed by code that only Plex's SQLite has."""


def query(path: str, statements: list[str], module: str = "sqlite3") -> list[list[Row]]:
    """Run each of ``statements`` and return their rows.

    Args:
        path: path of the database.
        statements: SQL statements. They cannot change the database, which is opened for reading.
        module: name of the SQLite module to use; any with Python's DB-API.

    Raises:
        Unanswered: If the database is busy, the query takes an hour, or its process dies.
        DatabaseError: If the file is damaged or not a database.
        OSError: If a file of the database cannot be examined.
    """
    _require_regular(path)
    rows: list[list[Row]] = json.loads(_ask({"path": path, "statements": statements}, module))
    return rows


def inspect(path: str, pragma: str, module: str = "sqlite3") -> Inspection:
    """Check the database at ``path`` and return the findings.

    Args:
        path: path of the database.
        pragma: ``integrity_check`` or ``quick_check``. If it is empty, check only the list of free
            pages and the full-text indexes.
        module: name of the SQLite module to use; any with Python's DB-API.

    Raises:
        Unanswered, DatabaseError, OSError: Under the conditions of :func:`query`.
    """
    _require_regular(path)
    asked = {"path": path, "statements": [], "pragma": pragma}
    return msgspec.json.decode(_ask(asked, module), type=Inspection)


def back_up(folder: int, name: bytes, copy: str) -> None:
    """Copy the current content of a database to ``copy``, even while other programs write to it.

    SQLite's Online Backup API copies all pages in one step, under one read lock
    (https://sqlite.org/backup.html). In WAL mode no writer waits for it. SQLite opens files by
    path, so the copying process checks that SQLite has opened the same file as this function.

    Args:
        folder: descriptor of the database's folder.
        name: name of the database in the folder.
        copy: path of the copy.

    Raises:
        DatabaseError: Under the conditions of :func:`query`, or if the database was replaced.
        OSError: If the database is a symlink, or not a regular file.
    """
    held = open_regular(name, dir_fd=folder)
    try:
        path = f"/proc/self/fd/{folder}/{os.fsdecode(name)}"
        _require_regular(path)
        asked = {
            "path": path,
            "statements": [],
            "copy": copy,
            "folder": folder,
            "name": os.fsdecode(name),
            "held": held,
        }
        _ask(asked, "sqlite3", (folder, held))
    finally:
        os.close(held)


def _ask(asked: dict[str, Any], module: str, pass_fds: tuple[int, ...] = ()) -> bytes:
    """Run a request in another process and return its output; see :func:`main`."""
    command = [sys.executable, "-P", "-m", _MODULE, module]
    done = run(command, json.dumps(asked).encode(), pass_fds)
    if done.returncode == _FAILED:
        raise DatabaseError(done.stdout.decode())
    if done.returncode == _UNANSWERED:
        raise Unanswered(done.stdout.decode())
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unanswered(f"SQLite's process failed: {last or done.returncode}")
    return done.stdout


def run(
    command: list[str], request: bytes = b"", pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run a program that opens a database; :func:`find_use` knows it as ours.

    Raises:
        Unanswered: If it takes an hour. It is killed.
        OSError: If it cannot be started.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - ourselves, or Plex's own with a quoted URI
        command, stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=pass_fds
    ) as process:
        _our_pids.add(process.pid)
        try:
            output, said = process.communicate(request, _SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Unanswered(f"SQLite did not finish within {_SECONDS:g} s") from error
        finally:
            process.kill()
            process.wait()
            _our_pids.discard(process.pid)
    return subprocess.CompletedProcess(command, process.returncode, output, said)


def address(path: str) -> tuple[str, bool]:
    """Return the URI for opening the database at ``path``, and whether a crash left its ``-wal``.

    - Without a ``-wal``, the database file is complete and is opened as immutable.
    - If a process has the database open, it is opened for shared reading.
    - If a crash left the ``-wal``, the database is read without locks and with an index in memory.

    Raises:
        OSError: If a file of the database is not a regular file, such as a FIFO, which would block.
    """
    _require_regular(path)
    name = _read_only(path)
    if not os.path.exists(f"{path}-wal"):
        return f"{name}&immutable=1", False
    if find_use(path) is not Use.NONE:
        return name, False
    return f"{name}&vfs=unix-none", True


def _require_regular(path: str) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        require_regular(f"{path}{suffix}")


def _read_only(path: str) -> str:
    return f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode=ro"


def find_use(path: str) -> Use:
    """Return who has the database at ``path`` open in WAL mode.

    Raises:
        OSError: If the ``-shm`` of the database cannot be opened.
    """
    try:
        fd = open_regular(f"{path}-shm", follow_symlinks=True)
    except FileNotFoundError:
        return Use.NONE
    try:
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _SHM_LOCK, 1, 0)
        kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, wanted))
    finally:
        os.close(fd)
    if kind == fcntl.F_UNLCK:
        return Use.NONE
    return Use.OURS if pid in _our_pids else Use.OTHERS


def main() -> None:
    """Run the request on stdin and exit without closing the database.

    Closing could checkpoint the ``-wal`` and delete it.
    """
    _keep_owners()
    sqlite = importlib.import_module(sys.argv[1])
    asked = json.load(sys.stdin)
    status = 0
    try:
        # Now: a Plex that ends meanwhile takes the -wal along, and SQLite would make a new one.
        uri, is_left = _address_for(asked)
        connection = sqlite.connect(uri, uri=True, isolation_level=None)
        connection.text_factory = lambda text: text.decode(errors="replace")
        if is_left:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        answer = json.dumps(_answer(connection, sqlite, asked))
    except sqlite.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        answer, status = str(error), _UNANSWERED if code in _NO_VERDICT else _FAILED
    except OSError as error:  # a file was replaced since the caller examined it
        answer, status = str(error), _UNANSWERED
    sys.stdout.write(answer)
    sys.stdout.flush()
    os._exit(status)


def _address_for(asked: dict[str, Any]) -> tuple[str, bool]:
    path = asked["path"]
    uri, is_left = address(path)
    if "copy" in asked and not os.path.exists(f"{path}-wal"):
        header = os.pread(asked["held"], _HEADER, 0)
        if header[_READ_VERSION:] != _WAL:
            uri = _read_only(path)  # locks separate writers from us
    return uri, is_left


def _back_up(connection: Any, sqlite: Any, asked: dict[str, Any]) -> None:  # noqa: ANN401
    """Copy the database of ``connection``, if it is the file that the caller has open."""
    name, held = os.fsencode(asked["name"]), os.fstat(asked["held"])
    opened = _opened(name, asked["held"])
    if not opened or not all(os.path.samestat(each, held) for each in opened):
        raise sqlite.DatabaseError("the database was replaced while it was opened")
    with closing(sqlite.connect(asked["copy"])) as copy:
        connection.backup(copy)
    with suppress(FileNotFoundError):
        wal = os.stat(name + b"-wal", dir_fd=asked["folder"], follow_symlinks=False)
        if not all(os.path.samestat(each, wal) for each in _opened(name + b"-wal")):
            raise sqlite.DatabaseError("the -wal was replaced while the database was copied")


def _opened(name: bytes, but: int = -1) -> list[os.stat_result]:
    """Return the attributes of open files called ``name``, except that of descriptor ``but``."""
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the descriptor of the listing itself is closed by now
            if fd != but and os.path.basename(os.readlink(b"/proc/self/fd/%d" % fd)) == name:
                found.append(os.fstat(fd))
    return found


def _keep_owners() -> None:
    """Give up root's effective user id, but keep root's access to files.

    As root, SQLite changes the owner of a ``-wal`` that it opens (unixOpen in os_unix.c). The file
    would get a new ctime and so count as changed.
    """
    if os.geteuid() == 0:
        with suppress(OSError):  # a user namespace may lack the user nobody
            os.seteuid(_NOBODY)
            ctypes.CDLL(None).setfsuid(0)


def _answer(connection: Any, sqlite: Any, asked: dict[str, Any]) -> Any:  # noqa: ANN401
    if "copy" in asked:
        _back_up(connection, sqlite, asked)
        return []
    schema = stand_in(connection)
    if "pragma" in asked:
        return _inspect(connection, asked["pragma"], schema)
    return [connection.execute(each).fetchall() for each in asked["statements"]]


def _findings(connection: Any, check: str, schema: Schema) -> list[str]:  # noqa: ANN401
    """Return at most twenty findings of a PRAGMA, without those that a stand-in may cause."""
    rows = connection.execute(f"PRAGMA {check}")
    wrong = (line for (line,) in rows if line != "ok" and not schema.tolerance.covers(line))
    return list(islice(wrong, _REPORTED))


def _inspect(connection: Any, pragma: str, schema: Schema) -> dict[str, Any]:  # noqa: ANN401
    findings = []
    if pragma:
        findings = _findings(connection, f"{pragma}({_MOST})", schema)
    # A check of all tables begins with the first one in SQLite's table of names. If that one is
    # virtual, it has no pages. SQLite then treats the check as a partial one, which leaves out the
    # free pages (sqlite3BtreeIntegrityCheck in btree.c). A check of the schema's own table always
    # includes them (https://sqlite.org/pragma.html#pragma_integrity_check).
    of_free_pages = _findings(connection, "quick_check(sqlite_master)", schema)
    findings += [line for line in of_free_pages if line not in findings]
    damaged = {}
    for table in schema.segmented:
        if not {f"{table}_segdir", f"{table}_segments"} <= schema.names:
            damaged[table] = "the tables of its segments are missing"
        elif found := damaged_index(connection, table):
            damaged[table] = found
    return {
        "findings": findings,
        "damaged_full_text": damaged,
        "unchecked_full_text": schema.opaque,
        "is_approximate": bool(schema.tolerance.computed),
    }


if __name__ == "__main__":
    main()
