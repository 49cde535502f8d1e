"""The index of one archive's encoded frames: their lengths and digests, stored durably.

The archive itself is never on disk. With the index, the agent can serve every part of it again
after a restart.

::

    64 bytes   fingerprint of the encoder (32), zeros
    64 bytes   for each frame: encoded length (8, big-endian), SHA-256 of it encoded (32), zeros
    64 bytes   for the whole archive: number of frames, SHA-256, zeros

Unknown records are all zeros. No record spans two sectors, so none is ever written partially.
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
from shared.positional_io import read_at, write_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.digest import Buffer
    from shared.frames.plan import FramePlan

_RECORD = struct.Struct(">Q32s24x")
_BATCH = 4096
"""Records that are read at once: a library of 10 TB has 150 MB of them."""
_SYNC_EVERY = 32
"""Number of frames between two syncs, and the most that a power cut can lose."""


class Stretch(NamedTuple):
    """A part of an archive, as a run of frames."""

    first: int
    """Number of the frame with its first byte."""
    skip: int
    """Bytes of the first frame that come before the part."""
    last: int
    """Number of the frame with its last byte."""
    stop: int | None
    """Offset in the last frame at which the part ends; None if it ends with the frame."""


class FrameIndex:
    """The index of one archive. Methods may be called from several threads.

    The file at ``path`` is created if it is missing, and discarded if another encoder wrote it.
    Methods raise OSError if it cannot be read or written.
    """

    def __init__(self, path: str, plan: FramePlan, encoding: Encoding) -> None:
        self._path = path
        self._frames = len(plan)
        self._lock = threading.Lock()
        self._unsynced = 0
        self._hasher = hashlib.sha256()
        self._hasher_lock = threading.Lock()
        self.hashed = 0
        """Number of frames, from the first, that the digest of the archive includes so far."""
        self.digest: bytes | None = None
        """SHA-256 of the whole archive; None while it is unknown."""
        self._starts: array[int] | None = None
        self._lengths = self._load(fingerprint(encoding))
        if encoding is Encoding.TAR:
            self._lengths = array("Q", (frame.size for frame in plan))
        self._missing = self._lengths.count(0)

    @property
    def size(self) -> int | None:
        """Bytes of the whole archive; None while the length of a frame is unknown."""
        starts = self._all_starts()
        return None if starts is None else starts[-1]

    def missing(self) -> Iterator[int]:
        """Yield the numbers of the frames whose length is unknown."""
        return (number for number, length in enumerate(self._lengths) if length == 0)

    def put(self, number: int, length: int, digest: bytes) -> bool:
        """Record length and SHA-256 of an encoded frame; return False if others are recorded."""
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
        """Add a frame to the digest of the whole archive, if it is the next one."""
        with self._hasher_lock:
            if number != self.hashed or self.digest is not None:
                return
            hasher = self._hasher.copy()  # if the write fails, the frame can be added again
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
        """Return the frames that hold the bytes ``part`` of the archive; None is the whole archive.

        Raises:
            LookupError: If ``part`` is given and the length of a frame is unknown.
        """
        if part is None:
            return Stretch(0, 0, self._frames - 1, None)
        starts = self._all_starts()
        if starts is None:
            raise LookupError("the length of a frame is not known")
        first, last = bisect_right(starts, part[0]) - 1, bisect_right(starts, part[-1]) - 1
        return Stretch(first, part.start - starts[first], last, part.stop - starts[last])

    def _all_starts(self) -> array[int] | None:
        """Return the offset of each frame and the end of the last; None if a length is unknown."""
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
            lengths = array("Q")
            for first in range(0, self._frames, _BATCH):
                records = file.read(min(_BATCH, self._frames - first) * _RECORD.size)
                lengths.extend(length for length, _ in _RECORD.iter_unpack(records))
        return lengths

    @staticmethod
    def _read(fd: int, record: int) -> tuple[int, bytes]:
        length, digest = _RECORD.unpack(read_at(fd, _RECORD.size, record * _RECORD.size))
        return length, digest

    @staticmethod
    def _write(fd: int, record: int, length: int, digest: bytes) -> None:
        write_at(fd, _RECORD.pack(length, digest), record * _RECORD.size)
