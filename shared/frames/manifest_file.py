"""A manifest at rest and on the wire: zstd frames of whole lines, read piece by piece.

The pieces are small, so any entry can be read without reading the whole manifest. The form of the
file is that of :mod:`shared.tree.line_file`: ``zstd -dc manifest.jsonl.zst | sha256sum`` prints the
snapshot's name.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING

from shared.errors import ManifestDigestWrong, ManifestMalformed, ManifestTooLarge
from shared.frames.plan import FramePlan
from shared.native import native
from shared.positional_io import read_at
from shared.tree.line_file import LineFormat, LineWriter, read_pieces, unpack
from shared.tree.manifest import (
    MAX_ENTRIES,
    START,
    Entry,
    Kind,
    Place,
    checked,
    format_line,
    parse_line,
)
from shared.tree.member_path import sort_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from shared.wire.protocol import Kind as SnapshotKind

_FORM = LineFormat("manifest", ManifestMalformed, ManifestTooLarge)


@dataclass(frozen=True, slots=True)
class Watch:
    """A reader of the manifest that need not see each entry."""

    see: Callable[[Entry], None]
    """Called in order with at least the following entries. Among kept entries, and among those that
    are not: the first one with its type, permissions and owner, or with holes; each one whose time,
    size or length of a name or target exceeds all before; and each one with an unusual name. Also
    each symlink that leads out of ``top``, and each entry in ``paths``."""
    top: bytes
    """Path of a folder."""
    paths: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Location:
    """Where a run of entries is in a manifest's file."""

    offsets: list[int]
    """Where each piece that holds some of them begins; and where the last one ends."""
    skip: int
    """Entries of the first piece that come before."""
    count: int

    def of(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines of these entries, from all lines of the pieces."""
        return lines[self.skip : self.skip + self.count]


class ManifestFile:
    """A manifest with its frame plan; holds an index of about 24 bytes a piece.

    :func:`write_manifest` and :func:`read_manifest` make it, with the library's own name as
    ``root``, and the kind of the snapshot.
    """

    def __init__(self, path: str, root: bytes, kind: SnapshotKind = "cold") -> None:
        self.path = path
        self.root = root
        self.name = ""
        """The snapshot's name: SHA-256 of the lines in hexadecimal. Unless the snapshot is cold,
        a line with its kind comes first, because a cold snapshot that saw the same is another."""
        self.plan = FramePlan()
        self._digest = hashlib.sha256(b"" if kind == "cold" else f"{kind}\n".encode())
        self._offset = array("Q")
        self._first = array("Q")
        self._lines = 0
        # A piece holds twenty frames, and each of two lanes requests one after the other. A frame
        # may span two pieces.
        self._read = lru_cache(4)(partial(_lines_of_piece, self._offset))

    def add_piece(self, offset: int, text: bytes) -> None:
        """Add the next piece, ``text`` with its zstd frame at ``offset``.

        The caller adds its entries to :attr:`plan`.
        """
        self._digest.update(text)
        self._offset.append(offset)
        self._first.append(self._lines)
        # Splitlines ends a line at "\r", too: JSON has that between values only, and ours never.
        self._lines += len(text.splitlines()) if b"\r" in text else text.count(b"\n")

    def close(self, size: int) -> None:
        """Complete the index: the file has ``size`` bytes and no other piece."""
        self._offset.append(size)
        self.name = self._digest.hexdigest()

    def __iter__(self) -> Iterator[Entry]:
        for piece in range(len(self._first)):
            yield from self._entries(piece)

    def __reversed__(self) -> Iterator[Entry]:
        """Yield all entries, last first: children before their parents."""
        for piece in reversed(range(len(self._first))):
            yield from reversed(self._entries(piece))

    def location(self, first: int, count: int) -> Location:
        """Return where ``count`` entries from number ``first`` on are, for another process."""
        piece = bisect_right(self._first, first) - 1
        last = bisect_right(self._first, first + count - 1)
        return Location(self._offset[piece : last + 1].tolist(), first - self._first[piece], count)

    def entries(self, first: int, count: int) -> list[Entry]:
        """Return ``count`` entries from number ``first`` on."""
        return list(map(parse_line, self.lines(first, count)))

    def lines(self, first: int, count: int) -> list[bytes]:
        """Return the lines of ``count`` entries from number ``first`` on, without newlines."""
        start = bisect_right(self._first, first) - 1
        end = bisect_right(self._first, first + count - 1)
        skip = first - self._first[start]
        if end - start == 1:  # as nearly always: the piece is not copied
            return self._piece(start)[skip : skip + count]
        lines = [line for piece in range(start, end) for line in self._piece(piece)]
        return lines[skip : skip + count]

    def pieces(self) -> Iterator[tuple[range, bytes]]:
        """Yield the numbers of the entries in each piece, and their lines."""
        for piece, numbers in enumerate(pairwise([*self._first, self._lines])):
            yield range(*numbers), read_piece(self.path, *self._offset[piece : piece + 2])

    def find(self, path: bytes) -> Entry | None:
        """Return the entry at ``path``, if there is one. This reads a few pieces only."""

        def first_key(piece: int) -> bytes:
            return sort_key(self.entries(self._first[piece], 1)[0].path)

        pieces = range(len(self._first))
        piece = bisect_right(pieces, sort_key(path), key=first_key) - 1
        entries = self._entries(piece) if piece >= 0 else []
        return next((entry for entry in entries if entry.path == path), None)

    def _entries(self, piece: int) -> list[Entry]:
        return list(map(parse_line, self._piece(piece)))

    def _piece(self, piece: int) -> list[bytes]:
        return self._read(self.path, piece)  # the file may have been renamed


def _lines_of_piece(offsets: array[int], path: str, piece: int) -> list[bytes]:
    return read_piece(path, *offsets[piece : piece + 2]).splitlines()


def read_lines(path: str, offsets: Sequence[int]) -> list[bytes]:
    """Return the lines of several pieces of the manifest in the file ``path``, without newlines.

    Args:
        path: the file.
        offsets: where each piece begins, and where the last one ends.

    Raises:
        ManifestMalformed: Something else has changed the file.
    """
    pieces = (read_piece(path, *ends) for ends in pairwise(offsets))
    return [line for piece in pieces for line in piece.splitlines()]


def read_piece(path: str, start: int, end: int) -> bytes:
    """Return the lines of the piece from ``start`` to ``end`` of the file ``path``.

    Raise ManifestMalformed if something else has changed the file.
    """
    with open(path, "rb") as file:
        return unpack(read_at(file.fileno(), end - start, start), path, _FORM)


def write_manifest(
    path: str, root: bytes, entries: Iterable[Entry | bytes], kind: SnapshotKind = "cold"
) -> ManifestFile:
    """Write ``entries``, of our own walk of the library called ``root``, to ``path``.

    Any of them may be given as lines.

    Raise ManifestTooLarge if there are more entries or frames than a puller accepts.
    """
    manifest = ManifestFile(path, root, kind)

    def add(offset: int, text: bytes) -> None:
        manifest.add_piece(offset, text)
        manifest.plan.add_lines(text)
        if manifest.plan.entries > MAX_ENTRIES:
            raise ManifestTooLarge(f"the manifest has more than {MAX_ENTRIES} entries")

    with LineWriter(path, add) as writer:
        for entry in entries:
            writer.add_lines(format_line(entry) if isinstance(entry, Entry) else entry)
        manifest.close(writer.sync())
    return manifest


def read_manifest(
    path: str,
    name: str,
    root: bytes,
    kind: SnapshotKind = "cold",
    watch: Watch | None = None,
) -> ManifestFile:
    """Return the manifest in the file ``path``, checked to the last entry.

    Args:
        path: a file that :func:`write_manifest` wrote, or that an agent sent.
        name: the snapshot's name, which must be the lines' digest.
        root: the library's own name.
        kind: of the snapshot.
        watch: sees entries, once they are checked.

    Raises:
        ManifestMalformed, ManifestTooLarge, ManifestDigestWrong, IllegalPath, IllegalLink,
        EntriesOutOfOrder, ParentNotDirectory: A check of it fails.
    """
    manifest, place = ManifestFile(path, root, kind), START
    for offset, text in read_pieces(path, _FORM):
        if not text.endswith(b"\n"):
            raise ManifestMalformed("a manifest piece ends within a line", path=path)
        manifest.add_piece(offset, text)
        place = _add_checked(manifest, text, place, watch)
    if place is START:
        raise ManifestMalformed("the manifest has no entries", path=path)
    manifest.close(os.path.getsize(path))
    if manifest.name != name:
        raise ManifestDigestWrong("the manifest is not that of the snapshot", path=path)
    return manifest


def _add_checked(manifest: ManifestFile, text: bytes, place: Place, watch: Watch | None) -> Place:
    """Add the entries in ``text``, which come after ``place``; return the place after them."""
    root, plan = manifest.root, manifest.plan
    watched = None if watch is None else (watch.top.count(b"/") + 1, list(watch.paths))
    found = None
    if native is not None:
        found = native.check(text, place, root, plan.open_run, watched)
    if found is not None and plan.extend(found[0]):
        if watch is not None:
            for start, end in found[2]:
                watch.see(parse_line(text[start:end]))
        return Place(*found[1])
    for entry in checked(map(parse_line, text.splitlines()), root, place):
        plan.add(entry)
        if watch is not None:
            watch.see(entry)
        place = Place(plan.entries, entry.path, entry.kind is Kind.DIRECTORY)
    return place
