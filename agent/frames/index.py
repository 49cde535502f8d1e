"""The index of one archive's encoded frames: lengths and digests, stored durably.

An archive is never on disk; what makes every part of it servable again after a restart is this.

::

    64 bytes   fingerprint of the encoder (32), zeros
    64 bytes   for each frame: encoded length (8, big-endian), SHA-256 of that (32), zeros
    64 bytes   the same for the whole archive

All zeros where not known. A record lies in one sector, so none is ever half there.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from array import array
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from agent.frames.encoder import fingerprint
from shared.frames.codec import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.digest import Buffer
    from shared.frames.plan import FramePlan

_RECORD = struct.Struct(">Q32s24x")
_SYNC_EVERY = 32
"""Frames after which what is known is made durable: a power cut costs as many at the most."""


class Stretch(NamedTuple):
    """A part of an archive, by frames."""

    first: int
    """The frame that it begins in."""
    skip: int
    """Bytes of that frame that come before it."""
    last: int
    """The frame that it ends in."""
    stop: int | None
    """Bytes of that frame up to its end; None if all of them are in it."""


class FrameIndex:
    """The index of one archive. Its methods may be called from several threads.

    Args:
        path: the index' file; created if missing, emptied if another encoder wrote it.
        plan: the snapshot's frames.
        encoding: the archive's.

    Raises:
        OSError: the file cannot be read or made.
    """

    def __init__(self, path: str, plan: FramePlan, encoding: Encoding) -> None:
        self._path = path
        self._frames = len(plan)
        self._lock = threading.Lock()
        self._unsynced = 0
        self._hasher = hashlib.sha256()
        self._hasher_lock = threading.Lock()
        self.hashed = 0
        """How many frames, from the first on, are in the digest of the whole so far."""
        self.digest: bytes | None = None
        """SHA-256 of the whole archive, once known."""
        self._starts: array[int] | None = None
        self._lengths = self._load(fingerprint(encoding))
        if encoding is Encoding.TAR:
            self._lengths = array("Q", (frame.size for frame in plan))
        self._missing = self._lengths.count(0)

    @property
    def size(self) -> int | None:
        """Bytes of the whole archive; None while a frame's length is not known."""
        starts = self._all_starts()
        return None if starts is None else starts[-1]

    def missing(self) -> Iterator[int]:
        """Numbers of the frames whose length is not known."""
        return (number for number, length in enumerate(self._lengths) if length == 0)

    def put(self, number: int, length: int, digest: bytes) -> bool:
        """Remember what frame ``number`` was encoded to; False if that differs from what is known.

        Raises:
            OSError: the file does not take it.
        """
        with self._lock, open(self._path, "rb+", buffering=0) as file:
            known_length, known_digest = self._read(file.fileno(), 1 + number)
            if known_length == 0:
                self._write(file.fileno(), 1 + number, length, digest)
                self._unsynced += 1
            elif (known_length, known_digest) != (length, digest):
                return False
            was_last = False
            if self._lengths[number] == 0:
                self._lengths[number] = length
                self._missing -= 1
                was_last = self._missing == 0
            if self._unsynced >= _SYNC_EVERY or was_last:
                os.fdatasync(file.fileno())
                self._unsynced = 0
        return True

    def add_to_whole(self, number: int, encoded: Buffer) -> None:
        """Take a frame into the digest of the whole, if it is the next one.

        Raises:
            OSError: the file does not take the digest that this completes.
        """
        with self._hasher_lock:
            if number != self.hashed or self.digest is not None:
                return
            hasher = self._hasher.copy()  # what fails can be tried again
            hasher.update(encoded)
            if number + 1 == self._frames:
                digest = hasher.digest()
                with open(self._path, "rb+", buffering=0) as file:
                    self._write(file.fileno(), 1 + self._frames, self._frames, digest)
                    os.fdatasync(file.fileno())
                self.digest = digest
            self._hasher = hasher
            self.hashed += 1

    def stretch(self, part: range | None) -> Stretch:
        """Where the bytes ``part`` of the archive lie; None for all of it, of whatever length.

        Raises:
            LookupError: there is a part, but not all lengths are known, see :attr:`size`.
        """
        if part is None:
            return Stretch(0, 0, self._frames - 1, None)
        starts = self._all_starts()
        if starts is None:
            raise LookupError("the length of a frame is not known")
        first, last = bisect_right(starts, part[0]) - 1, bisect_right(starts, part[-1]) - 1
        return Stretch(first, part.start - starts[first], last, part.stop - starts[last])

    def _all_starts(self) -> array[int] | None:
        """Where each frame begins and the last one ends, once every length is known."""
        if self._missing > 0:
            return None
        if self._starts is None:
            self._starts = array("Q", accumulate(self._lengths, initial=0))
        return self._starts

    def _load(self, encoder: bytes) -> array[int]:
        size = (self._frames + 2) * _RECORD.size
        with open(self._path, "ab") as file:
            pass
        with open(self._path, "rb+", buffering=0) as file:
            is_whole = os.fstat(file.fileno()).st_size == size
            if not is_whole or self._read(file.fileno(), 0)[1] != encoder:
                file.truncate(0)
                file.truncate(size)
                self._write(file.fileno(), 0, 0, encoder)
            known, digest = self._read(file.fileno(), 1 + self._frames)
            self.digest = digest if known else None
            file.seek(_RECORD.size)
            records = file.read(self._frames * _RECORD.size)
        return array("Q", (length for length, _ in _RECORD.iter_unpack(records)))

    @staticmethod
    def _read(fd: int, record: int) -> tuple[int, bytes]:
        length, digest = _RECORD.unpack(os.pread(fd, _RECORD.size, record * _RECORD.size))
        return length, digest

    @staticmethod
    def _write(fd: int, record: int, length: int, digest: bytes) -> None:
        os.pwrite(fd, _RECORD.pack(length, digest), record * _RECORD.size)
