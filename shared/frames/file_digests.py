"""The SHA-256 of every file of a snapshot, recorded while frames are built."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from shared.digest import SIZE
from shared.positional_io import read_at, write_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from shared.digest import Buffer

_UNKNOWN = bytes(SIZE)
_BATCH = 4096
_BUFFER = 1 << 20
"""Most bytes that are read at once. Each step waits for the interpreter's lock: beside a busy
thread, steps of 256 KiB take twice as long as these."""


def hash_descriptor(fd: int) -> bytes:
    """Return the raw SHA-256 of the content of the open file ``fd``."""
    size = min(_BUFFER, max(1, os.fstat(fd).st_size))  # most files are small
    digest, buffer, offset = hashlib.sha256(), memoryview(bytearray(size)), 0
    while count := os.preadv(fd, [buffer], offset):
        digest.update(buffer[:count])
        offset += count
    return digest.digest()


def split(block: bytes) -> Iterator[bytes | None]:
    """Yield the digest of each entry in ``block``, None if it is unknown."""
    for start in range(0, len(block), SIZE):
        digest = block[start : start + SIZE]
        yield digest if digest != _UNKNOWN else None


class FileDigests:
    """A file with 32 bytes for each entry, zero if the digest is unknown. It uses no memory.

    The file is not fsynced, because digests that a crash loses are computed again. No digest spans
    two sectors, so none is ever written partially. A missing file is created.
    """

    def __init__(self, path: str, entries: int) -> None:
        self._path = path
        with open(path, "ab") as file:
            file.truncate(entries * SIZE)

    def put(self, numbered: Iterable[tuple[int, bytes | None]]) -> None:
        """Record the raw digest, or None, of entries in ascending order of their numbers."""
        self.put_runs(_runs(numbered))

    def put_runs(self, runs: Iterable[tuple[int, Buffer]]) -> None:
        """Record runs of digests: the number of the first entry, and their bytes in a row.

        The bytes of an unknown digest are zero.
        """
        fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for first, block in runs:
                write_at(fd, block, first * SIZE)
        finally:
            os.close(fd)

    def copy(self, source: Self, runs: Iterable[tuple[int, int, int]]) -> None:
        """Copy digests from another snapshot's file ``source``.

        Args:
            source: the other file.
            runs: for each run of entries, the number of its first entry in ``source``, the number
                of the same entry here, and the length of the run.
        """
        with open(source._path, "rb") as old, open(self._path, "r+b") as new:
            for first, number, count in runs:
                for done in range(0, count, _BATCH):
                    length = min(_BATCH, count - done) * SIZE
                    block = read_at(old.fileno(), length, (first + done) * SIZE)
                    write_at(new.fileno(), block, (number + done) * SIZE)

    def block(self, numbers: range) -> bytes:
        """Return 32 bytes for each of the entries with these numbers, which follow one another."""
        with open(self._path, "rb") as file:
            return read_at(file.fileno(), len(numbers) * SIZE, numbers.start * SIZE)

    def __iter__(self) -> Iterator[bytes | None]:
        """Yield the digest of each entry in order, None if it is unknown."""
        with open(self._path, "rb") as file:
            while block := file.read(_BATCH * SIZE):
                yield from split(block)


def _runs(numbered: Iterable[tuple[int, bytes | None]]) -> Iterator[tuple[int, bytearray]]:
    first, block = 0, bytearray()
    for number, digest in numbered:
        if number * SIZE != first * SIZE + len(block):
            yield first, block
            first, block = number, bytearray()
        block += digest or _UNKNOWN
    yield first, block
