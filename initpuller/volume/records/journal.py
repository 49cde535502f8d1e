"""Which frames are safely on the volume: lines of text, appended and fsynced.

::

    done 17 <the frame's digest>
    kept 18 <the frame's digest, if known>       all of it was there from an earlier snapshot
    held 19 <another frame's digest, if known>   a block of an earlier snapshot is in its place: ask
                                                 the agent if it has changed
    redo 17                                      found damaged later

A frame's line is written only after its files are on disk. A torn last line, or whatever a power
loss leaves at the end, is cut off when the journal is opened.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO

from initpuller.volume.records.frame_tags import FrameTags
from shared.durable import fsync_folder
from shared.positional_io import write_at
from shared.presence import is_there

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LINE = re.compile(rb"(done|kept|held|redo) (\d{1,12})(?: ([0-9a-f]{64}))?\n")


class Journal:
    """The journal of one snapshot of so many ``frames``.

    It takes 3 bytes a frame in memory, and 32 for each frame with a digest.

    Its methods raise OSError; what they were to record is not recorded then.
    """

    def __init__(self, path: str, frames: int) -> None:
        self._done = bytearray(frames)
        self._tags = FrameTags(frames)
        is_new = not is_there(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        if is_new:
            fsync_folder(os.path.dirname(path))
        with os.fdopen(os.dup(self._fd), "rb") as file:
            self._end = _replay(file, self._done, self._tags)
        os.ftruncate(self._fd, self._end)
        self._found = bytes(self._done)
        self.has_earlier_frames = any(self._found)
        """Whether there was any frame when this journal was opened."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._fd

    def __contains__(self, frame: int) -> bool:
        """Whether frame number ``frame`` is safe."""
        return self._done[frame] == 1

    def __len__(self) -> int:
        """How many frames are safe."""
        return self._done.count(1)

    def is_of_earlier_run(self, frame: int) -> bool:
        """Return whether frame number ``frame`` was there when this journal was opened."""
        return self._found[frame] == 1

    def missing(self) -> Iterator[int]:
        """Yield the numbers of the frames that are not safe, in order."""
        return self._numbers(0, 0, len(self._done))

    def missing_parts(self, count: int) -> list[Iterator[int]]:
        """Return the numbers of the frames that are not safe, each in one of ``count`` parts.

        A part follows the one before it, and is as long, counting the frames that are safe.
        """
        ends = [len(self._done) * part // count for part in range(count + 1)]
        return [self._numbers(0, start, stop) for start, stop in pairwise(ends)]

    def safe(self) -> Iterator[int]:
        """Yield the numbers of the frames that are safe, in order."""
        return self._numbers(1, 0, len(self._done))

    def next_missing(self, start: int) -> int | None:
        """Return the first number from ``start`` on of a frame that is not safe."""
        found = self._done.find(0, start)
        return None if found < 0 else found

    def count_in(self, frames: range) -> int:
        """Return how many of ``frames``, which follow one another, are safe."""
        return self._done.count(1, frames.start, frames.stop)

    def _numbers(self, done: int, start: int, stop: int) -> Iterator[int]:
        number = self._done.find(done, start, stop)
        while number >= 0:
            yield number
            number = self._done.find(done, number + 1, stop)

    def tag(self, frame: int) -> str | None:
        """Return the digest of what is on the volume in a frame's place, if that is known.

        For a frame that is not safe, it is an earlier snapshot's, which may be the same. It is
        empty if something is there whose digest is unknown.
        """
        return self._tags.get(frame)

    def held(self) -> Iterator[int]:
        """Return the numbers of the frames that are not safe, but have a tag."""
        return (number for number in self._tags if not self._done[number])

    def done(self, frames: Iterable[tuple[int, str]]) -> None:
        """Record frames, each with its hexadecimal digest, durably."""
        frames = list(frames)
        self._append("".join(f"done {number} {digest}\n" for number, digest in frames))
        for number, digest in frames:
            self._done[number] = 1
            self._tags.put(number, digest)

    def carried(
        self, kept: Iterable[tuple[int, str | None]], held: Iterable[tuple[int, str]]
    ) -> None:
        """Record what an earlier snapshot has put there, durably.

        Args:
            kept: frames all of whose content is there, with their digests, if these are known.
            held: frames in whose place is what has this digest; empty: its digest is unknown.
        """
        kept, held = list(kept), list(held)
        lines = [f"kept {number} {tag or ''}".rstrip() for number, tag in kept]
        lines += [f"held {number} {tag}".rstrip() for number, tag in held]
        self._append("".join(f"{line}\n" for line in lines))
        for number, tag in kept:
            self._done[number] = 1
            if tag:
                self._tags.put(number, tag)
        for number, tag in held:
            self._tags.put(number, tag)

    def redo(self, frames: Iterable[int]) -> None:
        """Record that frames must be fetched again, durably."""
        frames = list(frames)
        if not frames:
            return
        self._append("".join(f"redo {number}\n" for number in frames))
        for number in frames:
            self._done[number] = 0
            self._tags.drop(number)

    def _append(self, lines: str) -> None:
        block = lines.encode()
        write_at(self._fd, block, self._end)
        os.fdatasync(self._fd)
        self._end += len(block)


def count_done(path: str, frames: int) -> int:
    """Return how many of ``frames`` the journal at ``path`` has; a missing one has none."""
    try:
        with open(path, "rb") as file:
            done = bytearray(frames)
            _replay(file, done, None)
            return done.count(1)
    except FileNotFoundError:
        return 0


def _replay(file: BinaryIO, done: bytearray, tags: FrameTags | None) -> int:
    """Take all good lines into ``done`` and, if given, ``tags``; return where they end."""
    end = 0
    for line in file:
        found = _LINE.fullmatch(line)
        if found is None or int(found[2]) >= len(done):
            break
        verb, number, tag = found[1], int(found[2]), found[3]
        if (verb == b"done" and tag is None) or (verb == b"redo" and tag is not None):
            break
        done[number] = verb in (b"done", b"kept")
        end += len(line)
        if tags is None:
            continue
        if tag is not None or verb == b"held":
            tags.put(number, (tag or b"").decode())
        else:
            tags.drop(number)
    return end
