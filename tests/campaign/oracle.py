"""The judges: rsync, sha256sum, SQLite and /proc say what arrived and what runs, not our code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rig.oracle import listed_files, rsync_differences, sums_hold
from rig.plex.commands import SERVER
from rig.plex.standin import DATABASE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_SHOWN = 5
_WRITTEN = "Metadata/written"
"""The folder in which the stand-in makes and removes files."""


def library_damage(target: Path, reference: Path) -> list[str]:
    """Return what is wrong with a moved library: nothing if it equals ``reference``.

    Args:
        target: the folder with ``Library`` and ``.plexodus``.
        reference: the source, or its copy, while Plex was stopped.
    """
    found, library = _sums_damage(target), target / "Library"
    if not library.is_dir():
        return [*found, "there is no Library"]
    differences = _differences(reference, library)
    if differences:
        found.append(f"rsync finds differences to the source: {', '.join(differences[:_SHOWN])}")
    return found


def rehearsal_damage(target: Path, made: Path, source: Path) -> list[str]:
    """Return what is wrong with a rehearsal of a library that was ``made`` and changes since.

    Each file has a digest and is as it says, the stand-in's table has no gap, and what Plex has not
    changed in ``source`` is as it was made: files by :func:`copy_damage`, tables by SQLite, because
    a database is not copied byte for byte while Plex writes into it.
    """
    library = target / "Library"
    found = _sums_damage(target) + copy_damage(library, made, source)
    try:
        unlisted = _unlisted(target, library)
        if unlisted:
            found.append(f"files without a digest: {', '.join(unlisted[:_SHOWN])}")
        found += [
            f"{each.name} of the rehearsal has other rows than were made"
            for each in sorted((made / SERVER / DATABASE).parent.glob("*.db"))
            if _tables(each) != _tables(library / each.relative_to(made))
        ]
        if not _has_no_gap(library / SERVER / DATABASE):
            found.append("the database of the rehearsal lacks rows")
    except (OSError, sqlite3.Error) as error:
        found.append(f"the rehearsal cannot be read: {error}")
    return found


def copy_damage(
    library: Path, made: Path, source: Path, excused: Collection[Path] = ()
) -> list[str]:
    """Return what is wrong with a copy of a library that was ``made`` and changes since.

    No entry is missing that Plex does not remove. What Plex has not changed in ``source`` is as it
    was made; databases are not compared.

    Args:
        library: the copy.
        made: the library as it was made.
        source: the library that Plex writes to.
        excused: files that were damaged on purpose, relative to the library.
    """
    found, names = [], _names(made)
    missing = [name for name in names if not os.path.lexists(library / name)]
    if missing:
        found.append(f"missing in the copy: {', '.join(missing[:_SHOWN])}")
    untouched = [
        each
        for each in names
        if Path(each) not in excused
        and not each.endswith(".db")
        and _is_same(made / each, source / each)
    ]
    differences = _differences(made, library, untouched)
    if differences:
        shown = ", ".join(differences[:_SHOWN])
        found.append(f"rsync finds differences in what Plex has not changed: {shown}")
    return found


def server_faults(
    on_vm: int, *, on_volume: bool, at_rest: bool, may_be_two: bool = False
) -> list[str]:
    """Return what is wrong with the number of servers.

    Args:
        on_vm: number of Plex processes on the VM.
        on_volume: whether a moved library is published, so that Plex may start on it.
        at_rest: whether nothing is under way, so that one of the two must run.
        may_be_two: whether a person has started Plex, or undone the move of this library.
    """
    found = []
    if on_vm > 1:
        found.append(f"{on_vm} processes of Plex run on the VM")
    if on_vm and on_volume and not may_be_two:
        found.append("two servers: the library is published, and Plex runs on the VM")
    if at_rest and not on_vm and not on_volume:
        found.append("no server: nothing is published, and Plex does not run on the VM")
    return found


def same_tree(one: Path, other: Path) -> bool:
    """Return whether rsync finds no difference."""
    return other.is_dir() and _differences(one, other) == []


def _sums_damage(target: Path) -> list[str]:
    """Return what is wrong with the digests beside a published library."""
    found = [] if sums_hold(target) else ["sha256sum -c does not accept SHA256SUMS"]
    ours = target / ".plexodus"
    try:
        receipt = json.loads((ours / "receipt.json").read_bytes())
        digest = hashlib.sha256((ours / "SHA256SUMS").read_bytes()).hexdigest()
    except FileNotFoundError:  # the receipt is written last
        return found
    if receipt["sums_sha256"] != digest:
        found.append("SHA256SUMS is not the one that the receipt names")
    return found


def _unlisted(target: Path, library: Path) -> list[str]:
    """Return each file that has no digest, not even by another name of it."""
    listed = {os.lstat(target / each).st_ino for each in listed_files(target)}
    files = (each for each in library.rglob("*") if stat.S_ISREG(each.lstat().st_mode))
    unlisted = (each for each in files if each.lstat().st_ino not in listed)
    return sorted(str(each.relative_to(library)) for each in unlisted)


def _differences(one: Path, other: Path, only: Sequence[str] | None = None) -> list[str]:
    try:
        return rsync_differences(one, other, only=only)
    except subprocess.CalledProcessError as error:  # a library that is being moved away
        return [f"rsync ended with {error.returncode}"]


def _names(top: Path) -> list[str]:
    """Return each path below ``top`` that Plex does not remove, relative to it."""
    paths = (str(each.relative_to(top)) for each in top.rglob("*"))
    return sorted(
        each
        for each in paths
        if _WRITTEN not in each and not each.endswith((".pid", "-wal", "-shm", "-journal"))
    )


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two entries have the same kind, size and time of change."""
    try:
        first, second = one.lstat(), other.lstat()
    except FileNotFoundError:
        return False
    marks = [(each.st_mode, each.st_size, each.st_mtime_ns) for each in (first, second)]
    return marks[0] == marks[1]


def _has_no_gap(database: Path) -> bool:
    """Return whether the rows of the stand-in's table are numbered without a gap."""
    with _opened(database) as copy:
        query = "SELECT count(*), coalesce(max(id), 0) FROM standin"
        rows, last = copy.execute(query).fetchone()
    return bool(rows == last)


def _tables(database: Path) -> str:
    """Return the digest of all rows of the database's tables, but the stand-in's.

    A virtual table has its rows in others, and needs the tokenizer of Plex's own SQLite.
    """
    digest = hashlib.sha256()
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'"
    with _opened(database) as copy:
        for (name,) in sorted(copy.execute(query)):
            if name != "standin":
                digest.update(name.encode())
                for row in copy.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - no user's name
                    digest.update(repr(row).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy of the database, so that nothing is written beside it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(sqlite3.connect(shutil.copy(database, folder))) as copy,
    ):
        yield copy
