"""Decides whether a file's attributes prove that it has not changed since a scan."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Kind as SnapshotKind

_RACY_NS = 2 * 10**9
"""A file with a ctime this close to the scan may have changed afterwards without a new ctime ("racy
git", git's Documentation/technical/racy-git)."""
_WRITE_BYTES = 0x7FFFF000
"""Most bytes of one write(2). It sets the ctime when it begins, not when it ends."""
_SLOWEST = 4 * 1024 * 1024
"""Assumed speed of the slowest disk, in bytes a second, for the duration of such a write."""
_SHORT_WRITE_NS = 10**9
"""Most that a write to a file of 4 MiB takes."""
_LATEST = 2**63 - 1
_DATABASE = re.compile(rb".*\.db(-wal|-shm|-journal)?", re.DOTALL)
"""SQLite also writes to these files through memory maps, so their times may change late."""


class Steadiness:
    """Decides which entries with equal attributes in two scans are really unchanged.

    Args:
        kind: kind of the first scan. In a cold one, each file is checked again after it was read.
        created: start of the first scan in RFC 3339, from the clock that also sets ctimes.
    """

    def __init__(self, kind: SnapshotKind, created: str) -> None:
        self._is_cold = kind == "cold"
        began = datetime.fromisoformat(created).timestamp()
        self._racy_from = int(began * 1000) * 10**6 - _RACY_NS
        self._racy_large: set[bytes] = set()
        """Files whose ctime is old enough for a small file, but not for one of their size."""

    @property
    def surely_before(self) -> int:
        """Time in ns; :meth:`holds` is true for what has an older ctime.

        Not so for files of databases, and for files of more than 4 MiB and their hard links.
        """
        if self._is_cold:
            return _LATEST
        return self._racy_from - _SHORT_WRITE_NS

    def holds(self, entry: Entry) -> bool:
        """Return whether ``entry``, found the same by both scans, is unchanged between them.

        Call this in the manifest's order, so that a file comes before its hard links.
        """
        if self._is_cold:
            return True
        if entry.ctime_ns >= self._racy_from or is_of_database(entry):
            return False
        if entry.kind is Kind.HARDLINK:
            return entry.link not in self._racy_large
        longest_write_ns = min(entry.size, _WRITE_BYTES) * 10**9 // _SLOWEST
        if entry.ctime_ns >= self._racy_from - longest_write_ns:
            self._racy_large.add(entry.path)
            return False
        return True


def is_of_database(entry: Entry) -> bool:
    """Return whether ``entry`` has the name of a SQLite database or of a file beside one.

    A hard link is judged by the file that it names, so that both are transferred, or neither.
    """
    name = {Kind.FILE: entry.path, Kind.HARDLINK: entry.link}.get(entry.kind, b"")
    return _DATABASE.fullmatch(name) is not None
