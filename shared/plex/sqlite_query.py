"""Queries of a SQLite database of Plex that change neither the database nor the files beside it.

Even a reader can change files (https://sqlite.org/wal.html):

- The first reader creates a ``-shm``.
- A reader that ignores a ``-wal`` misses its content.
- The last connection to close may delete the ``-wal``.

So the way to open a database depends on the files beside it. It is opened in a separate process
(:mod:`shared.plex.sqlite_process`), which exits without closing the database.

A database that no process has open is read without locks. If another program changes it meanwhile,
the result is worthless: the query is repeated once, and then counts as not answered.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import subprocess
import sys
from enum import Enum, auto
from typing import Any, Self, TypeAlias
from urllib.parse import quote

import msgspec

from shared import typed_json
from shared.presence import is_there
from shared.regular_file import open_regular, require_regular

Row: TypeAlias = list[Any]

_SHM_LOCK = 128
"""The byte of ``-shm`` that every connection locks (https://sqlite.org/walformat.html, 2.3.1)."""
_HEADER, _READ_VERSION, _WAL = 20, 19, b"\2"
"""Position and value of the header byte that shows WAL mode (https://sqlite.org/fileformat.html,
1.3.3)."""
_FILE_LOCKS = 1 << 30, 512
"""Position and length of the locks in a database (https://sqlite.org/lockingv3.html, 3.0)."""
_FLOCK = "hhqqi4x"
_UNUSABLE = (
    *(errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP),  # no regular file
    *(errno.ENOSYS, errno.EOPNOTSUPP),  # a filesystem without locks
)
"""Errors of a ``-shm`` that no SQLite can use. It locks that file to open a database."""
_SECONDS = 3600.0
FAILED, UNANSWERED, CHANGED = 3, 4, 5
"""Exit codes of the process that runs a query."""
PROGRAM = "--program"
"""In place of the name of a SQLite module: run a program."""
_ATTEMPTS = 2
_INTERFERENCE = "another program changed the database while it was read"
_MODULE = "shared.plex.sqlite_process"
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
        Unanswered: If the database is busy, the query takes an hour, its process dies, or another
            program changes the database twice while it is read without locks.
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
    return typed_json.decode(_ask(asked, module), Inspection)


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
    """Run a request in another process and return its output."""
    request = json.dumps(asked).encode()
    for _ in range(_ATTEMPTS):
        done = _run([module], request, pass_fds)
        if done.returncode != CHANGED:
            break
    else:
        raise Unanswered(_INTERFERENCE)
    if done.returncode == FAILED:
        raise DatabaseError(done.stdout.decode())
    if done.returncode == UNANSWERED:
        raise Unanswered(done.stdout.decode())
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unanswered(f"SQLite's process failed: {last or done.returncode}")
    return done.stdout


def run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a program that opens a database by its :func:`address`.

    :func:`find_use` knows it as ours.

    Raises:
        Unanswered: If it takes an hour, and is killed, or if another program changes the database
            twice while it is read without locks.
        OSError: If it cannot be started, or the database cannot be examined.
    """
    for _ in range(_ATTEMPTS):
        done = _run([PROGRAM, *command])
        if not any(map(has_changed, command)):
            return done
        command = [_renewed(each) for each in command]
    raise Unanswered(_INTERFERENCE)


def _renewed(argument: str) -> str:
    """Return the present address of a database in place of an earlier one."""
    if not isinstance(argument, _Unlocked):
        return argument
    uri, is_left = address(argument.path)
    if is_left:  # its -wal must not be deleted
        raise Unanswered(_INTERFERENCE)
    return uri


def _run(
    arguments: list[str], request: bytes = b"", pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run :mod:`shared.plex.sqlite_process`, which ends with this process."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-P", "-m", _MODULE, str(os.getpid()), *arguments]
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

    - Without a ``-wal``, the database file is complete and is opened as immutable, unless it is in
      rollback mode: then a program may be writing to it.
    - If a process has the database open, it is opened for shared reading.
    - If a crash left the ``-wal``, the database is read without locks and with an index in memory.

    Raises:
        OSError: If a file of the database is not a regular file, such as a FIFO, which would block.
    """
    _require_regular(path)
    name, files = read_only(path), _files(path)
    if not is_there(f"{path}-wal"):
        if _needs_locks(path):
            return name, False
        return _Unlocked(f"{name}&immutable=1", path, files), False
    if find_use(path) is not Use.NONE:
        return name, False
    return _Unlocked(f"{name}&vfs=unix-none", path, files), True


class _Unlocked(str):
    """The URI by which the database at ``path`` is read without locks, and its ``files`` before."""

    __slots__ = ("files", "path")
    path: str
    files: list[tuple[int, ...]]

    def __new__(cls, uri: str, path: str, files: list[tuple[int, ...]]) -> Self:
        """Return the URI as a string."""
        self = super().__new__(cls, uri)
        self.path, self.files = path, files
        return self


def has_changed(uri: str) -> bool:
    """Return whether ``uri`` is of a database that was read without locks, and has changed since.

    A file that can no longer be examined counts as changed.
    """
    try:
        return isinstance(uri, _Unlocked) and uri.files != _files(uri.path)
    except OSError:
        return True


def _files(path: str) -> list[tuple[int, ...]]:
    """Return what changes with each write to the database; an empty tuple for a missing file."""
    found: list[tuple[int, ...]] = []
    for suffix in ("", "-wal", "-journal"):
        try:
            info = os.stat(f"{path}{suffix}")
        except FileNotFoundError:
            found.append(())
        else:
            times = info.st_mtime_ns, info.st_ctime_ns
            found.append((info.st_dev, info.st_ino, info.st_size, *times))
    return found


def is_in_wal_mode(fd: int) -> bool:
    """Return whether the header of the database ``fd`` shows WAL mode."""
    return os.pread(fd, _HEADER, 0)[_READ_VERSION:] == _WAL


def _needs_locks(path: str) -> bool:
    """Return whether a database without a ``-wal`` has to be read with locks.

    A ``-journal`` that a crash left is ignored: with locks, SQLite would have to roll it back.
    """
    try:
        fd = open_regular(path, follow_symlinks=True)
    except OSError:
        return False  # SQLite reports it
    try:
        if is_in_wal_mode(fd):
            return False
        return not is_there(f"{path}-journal") or _lock_holder(fd, *_FILE_LOCKS) is not None
    finally:
        os.close(fd)


def _require_regular(path: str) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        require_regular(f"{path}{suffix}")


def read_only(path: str) -> str:
    """Return the URI for reading the database at ``path`` with locks."""
    return f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode=ro"


def find_use(path: str) -> Use:
    """Return who has the database at ``path`` open in WAL mode: nobody, if no SQLite could.

    Raises:
        OSError: If the ``-shm`` of the database cannot be opened, or its locks cannot be read.
    """
    pid = find_holder(path)
    if pid is None:
        return Use.NONE
    return Use.OURS if pid in _our_pids else Use.OTHERS


def find_holder(path: str) -> int | None:
    """Return a process that has the database at ``path`` open in WAL mode, or None.

    Linux reports the first that locked it (``posix_test_lock`` in fs/locks.c). The number is no
    process of this machine if that is in a PID namespace that this process does not see.

    Raises:
        OSError: As :func:`find_use`.
    """
    try:
        fd = open_regular(f"{path}-shm", follow_symlinks=True)
        try:
            return _lock_holder(fd, _SHM_LOCK, 1)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, *_UNUSABLE):
            return None
        raise


def _lock_holder(fd: int, start: int, length: int) -> int | None:
    """Return a process that has a lock on this part of the file, or None."""
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, wanted))
    return None if kind == fcntl.F_UNLCK else pid
