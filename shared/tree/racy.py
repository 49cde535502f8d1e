"""Whether a change of a file after a scan would show in a later scan."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Kind as SnapshotKind

_RACY_NS = 2 * 10**9
"""A file whose ctime is so close to the scan may have changed after it and kept its ctime ("racy
git", git's Documentation/technical/racy-git)."""
_WRITE_BYTES = 0x7FFFF000
"""The most that one write(2) writes. It sets the ctime when it begins, and not when it ends."""
_SLOWEST = 4 * 1024 * 1024
"""Bytes a second of the slowest disk that such a write is given time for."""
_DATABASE = re.compile(rb".*\.db(-wal|-shm|-journal)?", re.DOTALL)
"""SQLite writes into these through memory maps, too: the kernel sets their times when it likes."""


class Steadiness:
    """Of entries that two scans saw alike.

    Args:
        kind: of the first scan. After a cold one each file was looked at again once it was read.
        created: when that began: RFC 3339, by the clock that also sets ctimes.

    Raises:
        ValueError: it is no time.
    """

    def __init__(self, kind: SnapshotKind, created: str) -> None:
        self._is_cold = kind == "cold"
        began = datetime.fromisoformat(created).timestamp()
        self._racy_from = int(began * 1000) * 10**6 - _RACY_NS
        self._racy_large: set[bytes] = set()
        """Files that are too young only because of their size."""

    def holds(self, entry: Entry) -> bool:
        """Whether ``entry`` has not changed in between, if both saw it so.

        Args:
            entry: a hard link comes after what it is another name of, as in a manifest.
        """
        if self._is_cold:
            return True
        if entry.ctime_ns >= self._racy_from or is_of_database(entry):
            return False
        if entry.kind is Kind.HARDLINK:
            return entry.link not in self._racy_large
        if entry.ctime_ns >= self._racy_from - _longest_write_ns(entry.size):
            self._racy_large.add(entry.path)
            return False
        return True


def _longest_write_ns(size: int) -> int:
    """Return how long one write that overwrites a file of ``size`` bytes may take."""
    return min(size, _WRITE_BYTES) * 10**9 // _SLOWEST


def is_of_database(entry: Entry) -> bool:
    """Whether it is a database of SQLite, or what lies beside one, by its name.

    A hard link is what it is another name of: both are brought, or neither.
    """
    name = entry.link if entry.kind is Kind.HARDLINK else entry.path
    is_file = entry.kind in (Kind.FILE, Kind.HARDLINK)
    return is_file and _DATABASE.fullmatch(name) is not None
