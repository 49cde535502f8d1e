"""The process that runs the queries of :mod:`shared.plex.sqlite_query`.

It exits without closing the database, because closing could checkpoint the ``-wal`` and delete it.
It ends with its parent, because it would be taken for Plex afterwards.

::

    python -P -m shared.plex.sqlite_process PARENT MODULE        # the request is JSON on stdin
    python -P -m shared.plex.sqlite_process PARENT --program PROGRAM [ARGUMENT …]
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from contextlib import closing, suppress
from itertools import islice
from typing import Any

from shared.plex.fts3_segments import damaged_index
from shared.plex.sqlite_query import (
    CHANGED,
    FAILED,
    PROGRAM,
    UNANSWERED,
    address,
    has_changed,
    is_in_wal_mode,
    read_only,
)
from shared.plex.sqlite_standins import Schema, stand_in
from shared.presence import is_there

_PR_SET_PDEATHSIG = 1
_NOBODY = 65534
_NO_VERDICT = {1, 5, 6, 7, 9, 13, 15}
"""Result codes of SQLite that do not mean damage: ERROR (a name that this SQLite lacks), BUSY,
LOCKED, NOMEM, INTERRUPT, FULL and PROTOCOL (https://sqlite.org/rescode.html)."""
_MOST = 100_000_000
"""Most findings to request. SQLite stops at 100 by default."""
_REPORTED = 20
"""Most findings to report, of those that no stand-in explains."""


def main() -> None:
    """Run the request on stdin, or a program."""
    parent, module, *program = sys.argv[1:]
    if module == PROGRAM:
        _end_with(int(parent))
        os.execv(program[0], program)  # noqa: S606 - Plex's own
    _keep_owners()
    _end_with(int(parent))  # last, because a change of the user would undo it
    sqlite = importlib.import_module(module)
    asked = json.load(sys.stdin)
    uri, status = "", 0
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
        answer, status = str(error), UNANSWERED if code in _NO_VERDICT else FAILED
    except OSError as error:  # a file was replaced since the caller examined it
        answer, status = str(error), UNANSWERED
    if has_changed(uri):
        answer, status = "", CHANGED
    sys.stdout.write(answer)
    sys.stdout.flush()
    os._exit(status)


def _end_with(parent: int) -> None:
    """Have this process killed when its ``parent`` ends (prctl(2)), even if that has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(UNANSWERED)


def _address_for(asked: dict[str, Any]) -> tuple[str, bool]:
    path = asked["path"]
    uri, is_left = address(path)
    is_whole = not is_there(f"{path}-wal")
    if "copy" in asked and is_whole and not is_in_wal_mode(asked["held"]):
        uri = read_only(path)  # a copy must not ignore a -journal
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
