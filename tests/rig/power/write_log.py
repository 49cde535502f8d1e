"""The log of a disk: every write and every flush, in order, and what a power cut leaves of them."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_HEAD = struct.Struct("<qq")
"""Offset on the disk, or -1 for a flush; number of bytes that follow."""
_FLUSH = -1


@dataclass(frozen=True)
class Write:
    """One write, whose bytes are in the log."""

    offset: int
    """Where it is on the disk."""
    place: int
    """Where its bytes are in the log."""
    length: int

    def part(self, start: int, end: int) -> Write:
        """Return the part from its byte number ``start`` to before ``end``."""
        return Write(self.offset + start, self.place + start, end - start)


def append_write(log: int, offset: int, data: memoryview) -> None:
    """Add a write to the open ``log``."""
    os.writev(log, [_HEAD.pack(offset, len(data)), data])


def append_flush(log: int) -> None:
    """Add a flush to the open ``log``."""
    os.write(log, _HEAD.pack(_FLUSH, 0))


def read_log(path: Path, size: int | None = None) -> list[list[Write]]:
    """Return the writes in order, in one list for each flush that ended them.

    The last list has the writes after the last flush. A torn record at the end is left out: nobody
    has an answer to it.

    Args:
        path: the log.
        size: bytes of the log that are read; all by default.
    """
    size, place = path.stat().st_size if size is None else size, 0
    found: list[list[Write]] = [[]]
    with path.open("rb") as log:
        while place + _HEAD.size <= size:
            offset, length = _HEAD.unpack(log.read(_HEAD.size))
            place += _HEAD.size
            if offset == _FLUSH:
                found.append([])
            elif place + length <= size:
                found[-1].append(Write(offset, place, length))
                place = log.seek(length, os.SEEK_CUR)
            else:
                break
    return found


def survivors(chance: random.Random, unflushed: Iterable[Write], sector: int) -> Iterator[Write]:
    """Yield what a power cut leaves of the writes since the last flush.

    A disk writes them in any order. So each one is whole, absent, or torn, whatever became of those
    before it. Sometimes nothing is left, or nearly everything.

    Args:
        chance: decides it.
        unflushed: the writes.
        sector: number of bytes that a disk writes as a whole or not at all.
    """
    share = chance.choice([0.0, 0.1, 0.5, 0.9])
    for each in unflushed:
        if chance.random() >= share:
            continue
        if chance.random() < 0.7:
            yield each
        else:
            torn = chance.randrange(0, each.length + 1, sector)
            yield each.part(*chance.choice([(0, torn), (torn, each.length)]))


def apply(log: Path, writes: Iterable[Write], image: Path) -> None:
    """Write the bytes of ``writes`` from the ``log`` to their offsets in the file ``image``."""
    with log.open("rb") as source, image.open("r+b") as target:
        for each in writes:
            data = os.pread(source.fileno(), each.length, each.place)
            os.pwrite(target.fileno(), data, each.offset)
