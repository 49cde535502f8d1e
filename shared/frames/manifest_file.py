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
from itertools import pairwise
from typing import TYPE_CHECKING

from shared.errors import ManifestDigestWrong, ManifestMalformed, ManifestTooLarge
from shared.frames.plan import FramePlan
from shared.tree.line_file import PIECE, LineFormat, compressor, read_pieces, unpack
from shared.tree.manifest import Entry, checked, format_line, parse_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from shared.wire.protocol import Kind as SnapshotKind

_FORM = LineFormat("manifest", ManifestMalformed, ManifestTooLarge)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a run of entries is in a manifest's file."""

    offsets: list[int]
    """Where each piece that holds some of them begins; and where the last one ends."""
    skip: int
    """Entries of the first piece that come before."""
    count: int


class ManifestFile:
    """A manifest with its frame plan; holds an index of about 24 bytes a piece.

    Made by :func:`write_manifest` or :func:`read_manifest`.

    Args:
        path: its file.
        root: the library's own name.
        kind: of the snapshot.
    """

    def __init__(self, path: str, root: bytes, kind: SnapshotKind = "cold") -> None:
        self.path = path
        self.root = root
        self.name = ""
        """The snapshot's name: SHA-256 of the lines, hexadecimal; of one that is not cold,
        with its kind in a line before them, since a cold one that saw the same must be another."""
        self.plan = FramePlan()
        self._digest = hashlib.sha256(b"" if kind == "cold" else f"{kind}\n".encode())
        self._offset = array("Q")
        self._first = array("Q")
        self._last: tuple[tuple[int, int], list[Entry]] = (0, 0), []

    def begin_piece(self, offset: int, first: int, text: bytes) -> None:
        """Take the next piece into the index; its entries go to :attr:`plan` one by one.

        Args:
            offset: where in the file its zstd frame begins.
            first: the number of its first entry.
            text: its lines.
        """
        self._digest.update(text)
        self._offset.append(offset)
        self._first.append(first)

    def close(self, size: int) -> None:
        """No piece follows; the file has ``size`` bytes."""
        self._offset.append(size)
        self.name = self._digest.hexdigest()

    def __iter__(self) -> Iterator[Entry]:
        """All entries in order."""
        for piece in range(len(self._first)):
            yield from self._entries(piece)

    def __reversed__(self) -> Iterator[Entry]:
        """All entries, last first: children before their parents."""
        for piece in reversed(range(len(self._first))):
            yield from reversed(self._entries(piece))

    def location(self, first: int, count: int) -> Location:
        """Where ``count`` entries from number ``first`` on are: what another process must know."""
        piece = bisect_right(self._first, first) - 1
        last = bisect_right(self._first, first + count - 1)
        return Location(self._offset[piece : last + 1].tolist(), first - self._first[piece], count)

    def entries(self, first: int, count: int) -> list[Entry]:
        """``count`` entries from number ``first`` on.

        The last answer is remembered: of a large file, one frame after the other is asked for.
        """
        (asked, entries) = self._last
        if asked != (first, count):
            entries = read_entries(self.path, self.location(first, count))
            self._last = (first, count), entries
        return entries

    def _entries(self, piece: int) -> list[Entry]:
        start, end = self._offset[piece : piece + 2]
        with open(self.path, "rb") as file:
            packed = os.pread(file.fileno(), end - start, start)
        return list(map(parse_line, unpack(packed, self.path, _FORM).splitlines()))


def read_entries(path: str, location: Location) -> list[Entry]:
    """The entries at ``location`` of the manifest in the file ``path``.

    Raises:
        OSError: as the filesystem says.
        ManifestMalformed: something else has changed the file.
    """
    lines: list[bytes] = []
    with open(path, "rb") as file:
        for start, end in pairwise(location.offsets):
            packed = os.pread(file.fileno(), end - start, start)
            lines += unpack(packed, path, _FORM).splitlines()
    return list(map(parse_line, lines[location.skip : location.skip + location.count]))


def write_manifest(
    path: str, root: bytes, entries: Iterable[Entry], kind: SnapshotKind = "cold"
) -> ManifestFile:
    """Write ``entries``, of our own walk of the library called ``root``, to ``path``.

    Raises:
        OSError: as the filesystem says.
        ManifestTooLarge: more frames than anybody takes.
    """
    manifest = ManifestFile(path, root, kind)
    zstd = compressor()
    with open(path, "xb") as file:
        for first, text in _batches(manifest.plan, entries):
            manifest.begin_piece(file.tell(), first, text)
            file.write(zstd.compress(text))
        manifest.close(file.tell())
        file.flush()
        os.fsync(file.fileno())
    return manifest


def _batches(plan: FramePlan, entries: Iterable[Entry]) -> Iterator[tuple[int, bytes]]:
    """Number of the first entry and lines of each piece; the entries go into ``plan``."""
    lines: list[bytes] = []
    first = size = 0
    for entry in entries:
        plan.add(entry)
        line = format_line(entry)
        lines.append(line)
        size += len(line)
        if size >= PIECE:
            yield first, b"".join(lines)
            lines, size, first = [], 0, plan.entries
    if lines:
        yield first, b"".join(lines)


def read_manifest(
    path: str,
    name: str,
    root: bytes,
    kind: SnapshotKind = "cold",
    see: Callable[[Entry], None] | None = None,
) -> ManifestFile:
    """The manifest in the file ``path``, checked to the last entry.

    Args:
        path: a file that :func:`write_manifest` wrote, or that an agent sent.
        name: the snapshot's name, which the lines' digest must be.
        root: the library's own name.
        kind: of the snapshot.
        see: called with each entry.

    Raises:
        ManifestMalformed, ManifestTooLarge, ManifestDigestWrong, IllegalPath, IllegalLink,
        EntriesOutOfOrder, ParentNotDirectory: it is not one that we take.
    """
    manifest = ManifestFile(path, root, kind)
    for entry in checked(_parsed(manifest), root):
        manifest.plan.add(entry)
        if see is not None:
            see(entry)
    manifest.close(os.path.getsize(path))
    if manifest.name != name:
        raise ManifestDigestWrong("the manifest is not that of the snapshot", path=path)
    return manifest


def _parsed(manifest: ManifestFile) -> Iterator[Entry]:
    number = 0
    for offset, text in read_pieces(manifest.path, _FORM):
        if not text.endswith(b"\n"):
            raise ManifestMalformed("a manifest piece that ends within a line", path=manifest.path)
        manifest.begin_piece(offset, number, text)
        for line in text.splitlines():
            number += 1
            yield parse_line(line)
