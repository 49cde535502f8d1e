"""Cuts a manifest's entries into frames: arithmetic only, the same on both sides.

Small entries are packed together until a frame is full and never straddle frames. A file larger
than a frame has frames of its own, cut every :data:`FRAME` bytes of its content, so that their
boundaries depend on nothing but the file. The last frame carries the end-of-archive blocks. Entries
that a delta keeps are in no frame.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from shared.errors import ManifestTooLarge
from shared.manifest import Entry, Kind
from shared.tarlayout import END_OF_ARCHIVE, header_size, padded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FRAME = 4 * 1024 * 1024
"""Bytes: 4 to 16 MiB measured the same but for memory, 1 MiB worse."""
MAX_FRAMES = 2**24
"""Frames of one snapshot: 64 TiB of large files; what is planned takes memory."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A run of the archive's tar bytes."""

    number: int
    first: int
    """Number of its first entry in the manifest."""
    count: int
    """How many entries it touches, with those between them that are kept."""
    block: int
    """Which :data:`FRAME`-sized piece of its one large file; 0 also for packed frames."""
    size: int
    """Tar bytes."""
    is_last: bool


class Member(NamedTuple):
    """Where one entry lies in a frame."""

    entry: Entry
    number: int
    """The entry's number in the manifest."""
    start: int
    """Where in the frame its header, or for a later block its content, begins."""
    content: int
    """Where in the frame its content begins."""
    length: int
    """Bytes of its content in this frame."""
    offset: int
    """Where in the file these bytes begin."""


def is_large(entry: Entry) -> bool:
    """Whether ``entry`` has frames of its own."""
    return entry.size > FRAME


def block_length(frame: Frame, entry: Entry) -> int:
    """Bytes of the content of ``entry``, which is large, in ``frame``."""
    return min(FRAME, entry.size - frame.block * FRAME)


class FramePlan:
    """All frames of a snapshot, 24 bytes each."""

    def __init__(self) -> None:
        self._first = array("Q")
        self._block = array("Q")
        self._size = array("Q")
        self.entries = 0
        self.files = 0
        self.content_bytes = 0

    def __len__(self) -> int:
        """How many frames."""
        return len(self._first)

    def __getitem__(self, number: int) -> Frame:
        """Frame ``number``, from 0.

        Raises:
            IndexError: there is none.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        is_last = number == len(self) - 1
        first, block = self._first[number], self._block[number]
        after = self.entries if is_last else self._first[number + 1]
        size = self._size[number] + (len(END_OF_ARCHIVE) if is_last else 0)
        return Frame(number, first, max(1, after - first), block, size, is_last)

    def __iter__(self) -> Iterator[Frame]:
        """Every frame in order."""
        return (self[number] for number in range(len(self)))

    def frames_of(self, number: int, entry: Entry) -> range:
        """The numbers of all frames that ``entry``, of this number, lies in: none if it is kept."""
        if entry.kept:
            return range(0)
        last = bisect_right(self._first, number) - 1
        first = bisect_left(self._first, self._first[last])
        return range(first, last + 1)

    def add(self, entry: Entry) -> None:
        """Take the next entry in.

        Raises:
            ManifestTooLarge: more than :data:`MAX_FRAMES`.
        """
        if len(self) + entry.size // FRAME >= MAX_FRAMES:
            raise ManifestTooLarge(f"a manifest of more than {MAX_FRAMES} frames", path=entry.path)
        number = self.entries
        self.entries += 1
        if entry.kind is Kind.FILE:
            self.files += 1
            self.content_bytes += entry.size
        if entry.kept:
            return
        size = header_size(entry)
        if is_large(entry):
            self._add_large(number, size, entry.size)
            return
        size += padded(entry.size)
        if self._is_open() and self._size[-1] + size <= FRAME:
            self._size[-1] += size
        else:
            self._start(number, 0, size)
        self._open = True

    _open = False

    def _is_open(self) -> bool:
        return self._open and len(self) > 0

    def _start(self, first: int, block: int, size: int) -> None:
        self._first.append(first)
        self._block.append(block)
        self._size.append(size)

    def _add_large(self, number: int, head: int, size: int) -> None:
        for block, offset in enumerate(range(0, size, FRAME)):
            self._start(number, block, padded(min(FRAME, size - offset)))
            if block == 0:
                self._size[-1] += head
        self._open = False


def plan(entries: Iterable[Entry]) -> FramePlan:
    """The frames of ``entries``, which are in manifest order."""
    frames = FramePlan()
    for entry in entries:
        frames.add(entry)
    return frames


def members(frame: Frame, entries: Iterable[Entry]) -> Iterator[Member]:
    """Where each of ``frame``'s entries lies in it; ``entries`` are those, in order."""
    position = 0
    for number, entry in enumerate(entries, frame.first):
        if entry.kept:
            continue
        offset = frame.block * FRAME
        content = position + (header_size(entry) if offset == 0 else 0)
        length = block_length(frame, entry)
        yield Member(entry, number, position, content, length, offset)
        position = content + padded(length)
