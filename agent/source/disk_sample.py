"""How long it may take to read the whole library, by reading a little of it."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field

from shared.frames.plan import FRAME

_SAMPLE = 256
"""Small files that are read."""
_SECONDS = 1.0
"""That each of the two parts may take."""
_PIECE = 1024 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class ReadSample:
    """Which files to read: some small ones, each as likely as any other, and the largest."""

    small: int = 0
    """How many files there are of a frame at the most."""
    large_bytes: int = 0
    """Bytes of all others."""
    chosen: list[bytes] = field(default_factory=list)
    largest: tuple[int, bytes] = (0, b"")

    def offer(self, path: bytes, size: int) -> None:
        """One more file of the library (Vitter 1985, algorithm R)."""
        if size > FRAME:
            self.large_bytes += size
            self.largest = max(self.largest, (size, path))
            return
        self.small += 1
        if len(self.chosen) < _SAMPLE:
            self.chosen.append(path)
        elif (place := random.randrange(self.small)) < _SAMPLE:  # noqa: S311 - no secret
            self.chosen[place] = path


def read_seconds(base: int, sample: ReadSample) -> float:
    """Seconds that reading everything may take, one file after the other.

    Args:
        base: descriptor of the folder that the paths are relative to.
        sample: what to read; what has gone meanwhile is passed over.
    """
    seconds = 0.0
    if sample.chosen:
        count, took = _read_small(base, sample.chosen)
        seconds += took / count * sample.small
    if sample.large_bytes:
        size, took = _read_large(base, sample.largest[1])
        seconds += took / max(size, 1) * sample.large_bytes
    return seconds


def _read_small(base: int, paths: list[bytes]) -> tuple[int, float]:
    """How many were read, in how many seconds."""
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
    """How many bytes were read, in how many seconds."""
    size, started = 0, time.monotonic()
    with suppress(OSError):
        fd = os.open(path, _READ, dir_fd=base)
        try:
            while time.monotonic() - started < _SECONDS and (piece := os.read(fd, _PIECE)):
                size += len(piece)
        finally:
            os.close(fd)
    return size, time.monotonic() - started
