"""Integrity checks of Plex's SQLite databases, with a stock SQLite.

A plain ``PRAGMA integrity_check`` fails on every healthy database of Plex, because some collations
and tokenizers exist only in Plex's own build. Stand-ins take their place
(:mod:`shared.plex.sqlite_standins`). If Plex's own ``Plex SQLite`` is installed, it runs the
check.

A check has three outcomes: sound, damaged, or not checked. If a check times out, the database is
busy or the program crashes, the database counts as not checked.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from shared.plex.sqlite_query import DatabaseError, Inspection, Unanswered, address, inspect, run

if TYPE_CHECKING:
    from typing import BinaryIO

PLEX_SQLITE = "/usr/lib/plexmediaserver/Plex SQLite"
_MAGIC = b"SQLite format 3\x00"
_HEADER = 100
"""Bytes of a database's header (https://sqlite.org/fileformat.html, 1.3)."""
_REPORTED = 20
"""Most findings to report."""
_INVERTED = re.compile(r"(?:malformed|unable to validate the) inverted index for FTS\d table .+")


class DatabaseCheck(Enum):
    """The extent of a database check."""

    FULL = "full"
    """``PRAGMA integrity_check``."""
    QUICK = "quick"
    """``PRAGMA quick_check``, which does not compare indexes with their tables."""
    SKIP = "skip"


@dataclass(frozen=True)
class Soundness:
    """The result of a database check: sound if there is no damage and the database was checked."""

    damage: list[str] = field(default_factory=list)
    """The damage, in at most twenty lines."""
    rebuild: list[str] = field(default_factory=list)
    """Full-text tables with a damaged index, which can be rebuilt from the titles."""
    not_checked: str = ""
    """The reason why the database was not checked."""
    caveats: list[str] = field(default_factory=list)
    """Parts of an otherwise sound database that were not checked."""


def check_database(
    path: str,
    depth: DatabaseCheck = DatabaseCheck.FULL,
    module: str = "sqlite3",
    plex_sqlite: str = PLEX_SQLITE,
) -> Soundness:
    """Check the database at ``path``.

    Args:
        path: path of the database.
        depth: extent of the check. SKIP checks only that the file exists and is a database.
        module: name of the SQLite module to use; any with Python's DB-API.
        plex_sqlite: path of Plex's own program; it runs the check if it is installed.
    """
    try:
        if (wrong := _check_header(path)) is not None:
            return Soundness(damage=[wrong])
        if depth is DatabaseCheck.SKIP:
            return Soundness(not_checked="the check was skipped on request")
        pragma = "integrity_check" if depth is DatabaseCheck.FULL else "quick_check"
        said = _ask_plex(path, pragma, plex_sqlite)
        found = inspect(path, pragma if said is None else "", module)
    except OSError as error:
        return Soundness(damage=[f"cannot be read ({error.strerror})"])
    except Unanswered as error:
        return Soundness(not_checked=str(error))
    except DatabaseError as error:
        return Soundness(damage=[str(error)])
    return _soundness(found, said or [], depth)


def _soundness(found: Inspection, said: list[str], depth: DatabaseCheck) -> Soundness:
    """Combine the findings of our SQLite with the output lines of Plex's."""
    inverted = [line for line in said if _INVERTED.match(line)]
    damage = [*found.findings, *(line for line in said if line not in inverted)]
    damage += [f"full-text index {name}: {why}" for name, why in found.damaged_full_text.items()]
    caveats = inverted
    if found.unchecked_full_text:
        caveats.append(f"full-text index not checked: {', '.join(found.unchecked_full_text)}")
    if found.is_approximate:
        caveats.append("indexes that need Plex's SQLite were not compared with their tables")
    if depth is DatabaseCheck.QUICK:
        caveats.append("quick check: indexes were not compared with their tables")
    return Soundness(damage[:_REPORTED], list(found.damaged_full_text), caveats=caveats)


def is_database(file: BinaryIO) -> bool:
    """Return whether ``file`` begins with the header of a SQLite database."""
    head = file.read(_HEADER)
    return head.startswith(_MAGIC) and len(head) == _HEADER


def _check_header(path: str) -> str | None:
    if os.path.getsize(path) == 0:
        return "is empty"
    with open(path, "rb") as file:
        return None if is_database(file) else "is not a SQLite database"


def _ask_plex(path: str, pragma: str, program: str) -> list[str] | None:
    """Return the findings of Plex's SQLite, or None if it is not installed or fails.

    If a crash left a ``-wal``, Plex's SQLite is not run, because it would delete that file.

    Raises:
        Unanswered: If the check takes too long.
    """
    uri, is_left = address(path)
    if is_left or not os.access(program, os.X_OK):
        return None
    try:
        done = run([program, uri, f"PRAGMA {pragma}({_REPORTED})"])
    except OSError:
        return None
    lines = done.stdout.decode(errors="backslashreplace").splitlines()
    if done.returncode != 0 or not lines:
        return None  # our SQLite has result codes that distinguish damage from a lock
    return [line for line in lines if line != "ok"]
