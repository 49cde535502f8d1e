"""The frame plan: the division of a manifest's entries into frames, computed by both sides.

- Small entries are packed together until a frame is full. None of them spans two frames.
- A file larger than a frame has frames of its own, cut every :data:`FRAME` bytes of its content.
  So their boundaries depend on the file alone.
- The last frame ends with the end-of-archive blocks.
- Entries that a delta keeps are in no frame.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from shared.errors import ManifestTooLarge
from shared.frames.tar_layout import END_OF_ARCHIVE, header_size, padded
from shared.native import native
from shared.tree.manifest import Entry, Kind, parse_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from plexodus_native import Part

FRAME = 4 * 1024 * 1024
"""Size of a frame in bytes. 4 to 16 MiB measured the same except for memory; 1 MiB was slower."""
MAX_FRAMES = 2**24
"""Most frames of one snapshot: 64 TiB of large files. The journal takes 3 bytes a frame, and 32
more for each that is on the volume."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A run of the archive's tar bytes."""

    number: int
    first: int
    """Number of its first entry in the manifest."""
    count: int
    """Number of entries it spans, including kept entries between them."""
    block: int
    """Number of the :data:`FRAME`-sized block of its large file; 0 for packed frames."""
    size: int
    """Number of tar bytes."""


class Member(NamedTuple):
    """The position of one entry in a frame."""

    entry: Entry
    number: int
    """The entry's number in the manifest."""
    start: int
    """Offset in the frame of its header or, for a later block, of its content."""
    content: int
    """Offset in the frame of its content."""
    length: int
    """Bytes of its content in this frame."""
    offset: int
    """Offset in the file of these bytes."""


def is_large(entry: Entry) -> bool:
    """Return whether ``entry`` has frames of its own."""
    return entry.size > FRAME


def block_length(frame: Frame, entry: Entry) -> int:
    """Return how many bytes of the content of the large file ``entry`` are in ``frame``."""
    return min(FRAME, entry.size - frame.block * FRAME)


class FramePlan:
    """All frames of a snapshot, in runs of 32 bytes: a packed frame, or all of a large file.

    Memory grows with the number of entries, not with their sizes, because a manifest of a few bytes
    may declare a sparse file of many terabytes.
    """

    def __init__(self) -> None:
        self._start = array("Q")
        """Number of each run's first frame."""
        self._first = array("Q")
        """Number of each run's first entry."""
        self._head = array("Q")
        """Tar bytes of a packed frame, or of a large file's header."""
        self._file = array("Q")
        """Bytes of a large file's content; 0 for a packed frame."""
        self._frames = 0
        self._tar_bytes = 0
        self.entries = 0
        self.files = 0
        self.content_bytes = 0
        self.path_bytes = 0
        """Bytes of the files' paths."""

    def __len__(self) -> int:
        return self._frames

    @property
    def tar_bytes(self) -> int:
        """Number of tar bytes of all frames."""
        return self._tar_bytes + (len(END_OF_ARCHIVE) if self._frames else 0)

    @property
    def counted_entries(self) -> int:
        """Sum of :attr:`Frame.count`, without the second and later frames of large files."""
        ends = [*self._first[1:], self.entries]
        runs = zip(self._first, ends, self._file, strict=True) if self._first else ()
        return sum(1 if file else end - first for first, end, file in runs)

    def __getitem__(self, number: int) -> Frame:
        """Return frame ``number``, counted from 0; raise IndexError if there is no such frame."""
        if not 0 <= number < self._frames:
            raise IndexError(number)
        run = bisect_right(self._start, number) - 1
        first, file, size = self._first[run], self._file[run], self._head[run]
        block = number - self._start[run]
        if file:
            content = padded(min(FRAME, file - block * FRAME))
            size = content + (size if block == 0 else 0)
        if number == self._frames - 1:
            return Frame(number, first, self.entries - first, block, size + len(END_OF_ARCHIVE))
        is_end_of_run = self._start[run + 1] == number + 1 if run + 1 < len(self._start) else False
        after = self._first[run + 1] if is_end_of_run else first
        return Frame(number, first, max(1, after - first), block, size)

    def __iter__(self) -> Iterator[Frame]:
        return (self[number] for number in range(self._frames))

    def frames_of(self, number: int, entry: Entry) -> range:
        """Return the numbers of all frames that hold ``entry``, the manifest's ``number``-th."""
        if entry.kept:
            return range(0)
        run = bisect_right(self._first, number) - 1
        start, file = self._start[run], self._file[run]
        return range(start, start + _count(file))

    def add(self, entry: Entry) -> None:
        """Add the next entry; raise ManifestTooLarge beyond :data:`MAX_FRAMES` frames."""
        if self._frames + entry.size // FRAME >= MAX_FRAMES:
            raise ManifestTooLarge(
                f"the manifest has more than {MAX_FRAMES} frames", path=entry.path
            )
        number = self.entries
        self.entries += 1
        if entry.kind is Kind.FILE:
            self.files += 1
            self.content_bytes += entry.size
            self.path_bytes += len(entry.path)
        if entry.kept:
            return
        head = header_size(entry)
        size = head + padded(entry.size)
        self._tar_bytes += size
        if is_large(entry):
            self._start_run(number, head, entry.size)
        elif self._file and not self._file[-1] and self._head[-1] + size <= FRAME:
            self._head[-1] += size
        else:
            self._start_run(number, size, 0)

    def add_lines(self, lines: bytes) -> None:
        """Do the same as :meth:`add` for a piece of a manifest."""
        part = None if native is None else native.plan(lines, self.open_run)
        if part is None or not self.extend(part):
            for line in lines.splitlines():
                self.add(parse_line(line))

    @property
    def open_run(self) -> int | None:
        """Tar bytes of the last run if it is a packed frame, which the next entry may join."""
        return self._head[-1] if self._file and not self._file[-1] else None

    def extend(self, part: Part) -> bool:
        """Add what the accelerator has made of a piece, with :attr:`open_run`.

        Return False, and do nothing, if these may be too many frames.
        """
        if self._frames + part.most_frames >= MAX_FRAMES:
            return False
        if part.joined:
            self._head[-1] += part.joined
        for first, head, file in part.runs:
            self._start_run(self.entries + first, head, file)
        self.entries += part.entries
        self.files += part.files
        self.content_bytes += part.content_bytes
        self.path_bytes += part.path_bytes
        self._tar_bytes += part.tar_bytes
        return True

    def _start_run(self, first: int, head: int, file: int) -> None:
        self._start.append(self._frames)
        self._first.append(first)
        self._head.append(head)
        self._file.append(file)
        self._frames += _count(file)


def _count(file: int) -> int:
    """Return the frames of a run, from the bytes of its large file, or 0."""
    return max(1, (file + FRAME - 1) // FRAME)


def members(frame: Frame, entries: Iterable[Entry]) -> Iterator[Member]:
    """Yield the position of each entry that ``frame`` holds of the ``entries`` that it spans."""
    position = 0
    for number, entry in enumerate(entries, frame.first):
        if entry.kept:
            continue
        offset = frame.block * FRAME
        content = position + (header_size(entry) if offset == 0 else 0)
        length = block_length(frame, entry)
        yield Member(entry, number, position, content, length, offset)
        position = content + padded(length)
