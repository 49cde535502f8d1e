"""Whether one of Plex's SQLite databases is sound, as a stock SQLite can tell.

A plain ``PRAGMA integrity_check`` fails on every healthy database of Plex, because some collations
and tokenizers exist only in Plex's own build. Stand-ins take their place
(:mod:`shared.plex.sqlite_standins`). If Plex's own ``Plex SQLite`` is installed, it makes the
check.

A check has three outcomes: sound, damaged, or not checked. A check that takes too long, a busy
database and a program that crashes say nothing about the database.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from shared.plex.sqlite_query import DatabaseError, Inspection, Unanswered, address, inspect

if TYPE_CHECKING:
    from typing import BinaryIO

PLEX_SQLITE = "/usr/lib/plexmediaserver/Plex SQLite"
_MAGIC = b"SQLite format 3\x00"
_HEADER = 100
"""Bytes of a database's header (https://sqlite.org/fileformat.html, 1.3)."""
_REPORTED = 20
"""Findings to report."""
_SECONDS = 3600.0
_INVERTED = re.compile(r"(?:malformed|unable to validate the) inverted index for FTS\d table .+")


class DatabaseCheck(Enum):
    """How much of a database is checked."""

    FULL = "full"
    """``PRAGMA integrity_check``."""
    QUICK = "quick"
    """``PRAGMA quick_check``: does not compare indexes with their tables."""
    SKIP = "skip"


@dataclass(frozen=True)
class Soundness:
    """What a check of a database found. Without damage and with nothing unchecked, it is sound."""

    damage: list[str] = field(default_factory=list)
    """What is wrong, at most twenty lines."""
    rebuild: list[str] = field(default_factory=list)
    """Full-text tables whose index is damaged; it can be rebuilt from the titles."""
    not_checked: str = ""
    """Why the database was not checked."""
    caveats: list[str] = field(default_factory=list)
    """What was not checked of a database that is otherwise sound."""


def check_database(
    path: str,
    depth: DatabaseCheck = DatabaseCheck.FULL,
    module: str = "sqlite3",
    plex_sqlite: str = PLEX_SQLITE,
) -> Soundness:
    """Check the database at ``path``.

    Args:
        path: the database's file.
        depth: how much to check. With SKIP, only that the file is there and is a database.
        module: which SQLite to use; any with Python's DB-API.
        plex_sqlite: Plex's own program; it makes the check if it is installed.
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
    """Return the verdict on what our SQLite found and what Plex's said."""
    inverted = [line for line in said if _INVERTED.match(line)]
    damage = [*found.findings, *(line for line in said if line not in inverted)]
    damage += [f"full-text index {name}: {why}" for name, why in found.damaged_full_text.items()]
    caveats = inverted
    if found.unchecked_full_text:
        caveats.append(f"full-text index not checked: {', '.join(found.unchecked_full_text)}")
    if found.is_approximate:
        caveats.append("indexes that need Plex's SQLite not compared with their tables")
    if depth is DatabaseCheck.QUICK:
        caveats.append("quick check: indexes not compared with their tables")
    return Soundness(damage[:_REPORTED], list(found.damaged_full_text), caveats=caveats)


def is_database(file: BinaryIO) -> bool:
    """Whether ``file`` begins as a SQLite database does."""
    head = file.read(_HEADER)
    return head.startswith(_MAGIC) and len(head) == _HEADER


def _check_header(path: str) -> str | None:
    if os.path.getsize(path) == 0:
        return "is empty"
    with open(path, "rb") as file:
        return None if is_database(file) else "is no SQLite database"


def _ask_plex(path: str, pragma: str, program: str) -> list[str] | None:
    """Return what Plex's SQLite finds, or None if it cannot be asked or fails.

    It is not asked about a database with a ``-wal`` that a crash left: it would delete that file.

    Raises:
        Unanswered: it takes too long.
    """
    uri, is_left = address(path)
    if is_left or not os.access(program, os.X_OK):
        return None
    try:
        done = subprocess.run(  # noqa: S603 - Plex's own, with a quoted URI
            [program, uri, f"PRAGMA {pragma}({_REPORTED})"],
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise Unanswered(f"Plex SQLite did not finish within {_SECONDS:g} s") from error
    except OSError:
        return None
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        return None  # ours has result codes that tell damage from a lock
    return [line for line in lines if line != "ok"]
