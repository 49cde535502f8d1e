"""The SHA-256 of every file of a snapshot, filled in as frames are made."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from shared.digest import SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

_UNKNOWN = bytes(SIZE)
_BATCH = 4096
_CHUNK = 1024 * 1024


def hash_descriptor(fd: int) -> bytes:
    """The raw SHA-256 of all that is in the file ``fd``."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    offset = 0
    while got := os.preadv(fd, [buffer], offset):
        digest.update(buffer[:got])
        offset += got
    return digest.digest()


class FileDigests:
    """A file of 32 bytes an entry, zero for what is not known; holds nothing in memory.

    It is not fsynced: what a crash takes away is read and hashed again, and no digest lies
    across two sectors, so none is ever half there.

    Args:
        path: the file; made if missing.
        entries: how many entries the snapshot has.
    """

    def __init__(self, path: str, entries: int) -> None:
        self._path = path
        with open(path, "ab") as file:
            file.truncate(entries * SIZE)

    def put(self, numbered: Iterable[tuple[int, bytes | None]]) -> None:
        """Remember digests of entries by their numbers, which ascend; None for what has none."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            first, block = 0, bytearray()
            for number, digest in numbered:
                if number * SIZE != first * SIZE + len(block):
                    os.pwrite(fd, block, first * SIZE)
                    first, block = number, bytearray()
                block += digest or _UNKNOWN
            os.pwrite(fd, block, first * SIZE)
        finally:
            os.close(fd)

    def copy(self, source: Self, runs: Iterable[tuple[int, int, int]]) -> None:
        """Copy digests from another snapshot's file.

        Args:
            source: the other file.
            runs: the number of the first entry in ``source``, its number here, and how many.

        Raises:
            OSError: a file cannot be read or written.
        """
        with open(source._path, "rb") as old, open(self._path, "r+b") as new:
            for first, number, count in runs:
                for done in range(0, count, _BATCH):
                    length = min(_BATCH, count - done) * SIZE
                    block = os.pread(old.fileno(), length, (first + done) * SIZE)
                    os.pwrite(new.fileno(), block, (number + done) * SIZE)

    def __iter__(self) -> Iterator[bytes | None]:
        """The digest of each entry in order, None where not known."""
        with open(self._path, "rb") as file:
            while block := file.read(_BATCH * SIZE):
                for start in range(0, len(block), SIZE):
                    digest = block[start : start + SIZE]
                    yield digest if digest != _UNKNOWN else None
