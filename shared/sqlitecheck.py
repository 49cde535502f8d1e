"""Whether one of Plex' SQLite databases is sound, as a stock SQLite can tell.

A plain ``PRAGMA integrity_check`` fails on every healthy database of Plex: the collation
``icu_root`` and the tokenizer ``collating`` exist only in Plex' own build. Stand-ins take their
place (:mod:`shared.sqlitequery`), and what these bring about is left out of the findings. Where
Plex' own ``Plex SQLite`` is installed, it is asked instead.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from shared.sqlitequery import DatabaseError, address, query

if TYPE_CHECKING:
    from typing import BinaryIO

PLEX_SQLITE = "/usr/lib/plexmediaserver/Plex SQLite"
_MAGIC = b"SQLite format 3\x00"
_HEADER = 100
"""Bytes of a database's header (https://sqlite.org/fileformat.html, 1.3)."""
_ALL = 100_000_000
"""Findings to report; SQLite stops at 100 unless asked for more."""
_TOLD = 20
"""Findings that are passed on."""
_SECONDS = 3600.0

_MISSING = re.compile(r"row \d+ missing from index (.+)")
_FULL_TEXT = re.compile(r"malformed inverted index for FTS4 table .+")


def check_database(path: str, module: str = "sqlite3", plex_sqlite: str = PLEX_SQLITE) -> list[str]:
    """What is wrong with the database at ``path``, at most twenty lines; nothing if it is sound.

    Args:
        path: the database's file.
        module: which SQLite to use; any with Python's DB-API.
        plex_sqlite: Plex' own program, which knows best where it is there.
    """
    try:
        if (wrong := _look_at_file(path)) is not None:
            return [wrong]
        uri, is_left = address(path)
        if os.access(plex_sqlite, os.X_OK) and not is_left:
            return _ask_plex(uri, plex_sqlite)
        indexes, lines = query(
            path,
            [
                "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '%icu_root%'",
                f"PRAGMA integrity_check({_ALL})",
            ],
            module,
        )
    except OSError as error:
        return [f"cannot be read ({error.strerror})"]
    except DatabaseError as error:
        return [str(error)]
    ours = {name for (name,) in indexes}
    return [line for (line,) in lines if line != "ok" and not _is_ours(line, ours)][:_TOLD]


def is_database(file: BinaryIO) -> bool:
    """Whether ``file`` begins as a SQLite database does."""
    head = file.read(_HEADER)
    return head.startswith(_MAGIC) and len(head) == _HEADER


def _look_at_file(path: str) -> str | None:
    if os.path.getsize(path) == 0:
        return "is empty"
    with open(path, "rb") as file:
        return None if is_database(file) else "is no SQLite database"


def _is_ours(line: str, indexes: set[str]) -> bool:
    """Whether a finding comes from a stand-in, which orders and splits words in its own way."""
    if missing := _MISSING.fullmatch(line):
        return missing[1] in indexes
    return _FULL_TEXT.fullmatch(line) is not None


def _ask_plex(uri: str, program: str) -> list[str]:
    """Not of a ``-wal`` that a crash left: the program would delete it at its end."""
    done = subprocess.run(  # noqa: S603 - Plex' own, with a quoted URI
        [program, uri, f"PRAGMA integrity_check({_TOLD})"],
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=_SECONDS,
    )
    said = [line for line in done.stdout.splitlines() if line != "ok"]
    if done.returncode != 0:
        said += done.stderr.splitlines() or [f"Plex SQLite ended with {done.returncode}"]
    return said[:_TOLD]
