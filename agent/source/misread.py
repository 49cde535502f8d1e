"""Files of a live snapshot that were not there when they were read.

A folder that is renamed and gets its name back leaves the times of the files in it alone. If one of
them is read meanwhile, something else is sent, but later it looks as it did in the scan. So nothing
that was misread counts as unchanged in a later scan.
"""

from __future__ import annotations

import errno
import os
from array import array
from typing import TYPE_CHECKING

import msgspec

from shared.durable import fsync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.tree.manifest import Entry

_NO_INODE = 2**80


class Misread:
    """The numbers of such entries of one snapshot, in the file ``path``.

    Each is durable before the frame is sent. Threads and processes may add numbers at any time.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, numbers: Iterable[int]) -> None:
        """Add entries by their numbers in the manifest."""
        added = array("Q", numbers).tobytes()
        if not added:
            return
        is_new = not os.path.exists(self._path)
        with open(self._path, "ab", buffering=0) as file:
            if file.write(added) != len(added):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
            os.fdatasync(file.fileno())
        if is_new:
            fsync_folder(os.path.dirname(self._path))

    def numbers(self) -> frozenset[int]:
        """Return all numbers."""
        numbers = array("Q")
        try:
            with open(self._path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return frozenset()
        numbers.frombytes(content[: len(content) // numbers.itemsize * numbers.itemsize])
        return frozenset(numbers)


class Comparable:
    """Makes the entries of a snapshot comparable with a later scan. Ask in the manifest's order."""

    def __init__(self, misread: Misread) -> None:
        self.numbers = misread.numbers()
        """The entries that were misread."""
        self._paths: set[bytes] = set()

    def made(self, number: int, entry: Entry) -> Entry:
        """Return the entry, or one that no scan can find unchanged.

        A hard link is treated as the file that it names.
        """
        if number in self.numbers:
            self._paths.add(entry.path)
        elif not self._paths or entry.link not in self._paths:
            return entry
        return msgspec.structs.replace(entry, inode=_NO_INODE)
