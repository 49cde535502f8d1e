"""Estimate the time to read a whole library by reading a sample of its files."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field

from shared.frames.plan import FRAME

_SAMPLE = 256
"""Small files to read."""
_SECONDS = 1.0
"""Limit for the small files, and for the large file."""
_PIECE = 1024 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class DiskSample:
    """Files to read: small ones, each with the same probability, and the largest file."""

    small: int = 0
    """Number of files that are no larger than a frame."""
    large_bytes: int = 0
    """Bytes of all larger files."""
    chosen: list[bytes] = field(default_factory=list)
    largest: tuple[int, bytes] = (0, b"")

    def offer(self, path: bytes, size: int) -> None:
        """Consider one more file of the library (Vitter 1985, algorithm R)."""
        if size > FRAME:
            self.large_bytes += size
            self.largest = max(self.largest, (size, path))
            return
        self.small += 1
        if len(self.chosen) < _SAMPLE:
            self.chosen.append(path)
        elif (place := random.randrange(self.small)) < _SAMPLE:  # noqa: S311 - no secret
            self.chosen[place] = path

    def read_seconds(self, base: int) -> float:
        """Return the estimated seconds for reading all files, one after the other.

        Skips files that are gone.

        Args:
            base: descriptor of the folder that the paths are relative to.
        """
        seconds = 0.0
        if self.chosen:
            count, took = _read_small(base, self.chosen)
            seconds += took / count * self.small
        if self.large_bytes:
            size, took = _read_large(base, self.largest[1])
            seconds += took / max(size, 1) * self.large_bytes
        return seconds


def _read_small(base: int, paths: list[bytes]) -> tuple[int, float]:
    """Return how many files were read, and in how many seconds."""
    count, started = 0, time.monotonic()
    for path in paths:
        count += 1
        with suppress(OSError):
            fd = os.open(path, _READ, dir_fd=base)
            try:
                while os.read(fd, _PIECE):
                    pass
            finally:
                os.close(fd)
        if time.monotonic() - started > _SECONDS:
            break
    return count, time.monotonic() - started


def _read_large(base: int, path: bytes) -> tuple[int, float]:
    """Return how many bytes were read, and in how many seconds."""
    size, started = 0, time.monotonic()
    with suppress(OSError):
        fd = os.open(path, _READ, dir_fd=base)
        try:
            while time.monotonic() - started < _SECONDS and (piece := os.read(fd, _PIECE)):
                size += len(piece)
        finally:
            os.close(fd)
    return size, time.monotonic() - started
