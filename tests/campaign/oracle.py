"""The judges: rsync, sha256sum, SQLite and /proc say what arrived and what runs, not our code."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from typing import TYPE_CHECKING

from rig.oracle import rsync_differences, sums_hold
from rig.plex.commands import SERVER
from rig.plex.standin import DATABASE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SHOWN = 5
_WRITTEN = "Metadata/written"
"""The folder in which the stand-in makes and removes files."""


def library_damage(target: Path, references: Sequence[Path]) -> list[str]:
    """Return what is wrong with a moved library: nothing if it equals one of ``references``.

    Args:
        target: the folder with ``Library`` and ``.plexodus``.
        references: copies of the source while Plex was stopped, or the source itself.
    """
    found = [] if sums_hold(target) else ["sha256sum -c does not accept SHA256SUMS"]
    library = target / "Library"
    if not library.is_dir():
        return [*found, "there is no Library"]
    best: list[str] | None = None
    for reference in references:
        try:
            differences = rsync_differences(reference, library)
        except subprocess.CalledProcessError as error:  # a source that a started Plex changes
            differences = [f"rsync ended with {error.returncode}"]
        if not differences:
            return found
        if best is None or len(differences) < len(best):
            best = differences
    shown = ", ".join((best or ["there is nothing to compare with"])[:_SHOWN])
    return [*found, f"rsync finds differences to each state of the source: {shown}"]


def rehearsal_damage(target: Path, made: Path) -> list[str]:
    """Return what is wrong with a rehearsal of a library that was ``made`` and changes since.

    Each file is as its digest says, no entry is missing that Plex does not remove, and the
    stand-in's table has no gap.
    """
    found = [] if sums_hold(target) else ["sha256sum -c does not accept SHA256SUMS"]
    library = target / "Library"
    missing = [name for name in _names(made) if not os.path.lexists(library / name)]
    if missing:
        found.append(f"missing in the rehearsal: {', '.join(missing[:_SHOWN])}")
    try:
        if not _has_no_gap(library / SERVER / DATABASE):
            found.append("the database of the rehearsal lacks rows")
    except (OSError, sqlite3.Error) as error:
        found.append(f"the database of the rehearsal cannot be read: {error}")
    return found


def server_faults(on_vm: int, *, on_volume: bool, at_rest: bool) -> list[str]:
    """Return what is wrong with the number of servers.

    Args:
        on_vm: number of Plex processes on the VM.
        on_volume: whether a moved library is published, so that Plex may start on it.
        at_rest: whether nothing is under way, so that one of the two must run.
    """
    found = []
    if on_vm > 1:
        found.append(f"{on_vm} processes of Plex run on the VM")
    if on_vm and on_volume:
        found.append("two servers: the library is published, and Plex runs on the VM")
    if at_rest and not on_vm and not on_volume:
        found.append("no server: nothing is published, and Plex does not run on the VM")
    return found


def same_tree(one: Path, other: Path) -> bool:
    """Return whether rsync finds no difference."""
    return other.is_dir() and rsync_differences(one, other) == []


def _names(top: Path) -> list[str]:
    """Return each path below ``top`` that Plex does not remove, relative to it."""
    paths = (str(each.relative_to(top)) for each in top.rglob("*"))
    return sorted(
        each
        for each in paths
        if _WRITTEN not in each and not each.endswith((".pid", "-wal", "-shm", "-journal"))
    )


def _has_no_gap(database: Path) -> bool:
    """Return whether the rows of the stand-in's table are numbered without a gap."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(database, folder)
        with closing(sqlite3.connect(copy)) as opened:
            query = "SELECT count(*), coalesce(max(id), 0) FROM standin"
            rows, last = opened.execute(query).fetchone()
    return bool(rows == last)
