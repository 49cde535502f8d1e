"""A manifest at rest and on the wire: zstd frames of whole lines, read piece by piece.

The pieces are small, so that any entry can be had without reading the manifest, and a reader
never holds more than one piece. Concatenated zstd frames are one zstd file (RFC 8878 section 3),
so ``zstd -dc manifest.jsonl.zst | sha256sum`` gives the snapshot's name.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

import zstandard

from shared.errors import ManifestDigestWrong, ManifestMalformed, ManifestTooLarge
from shared.frameplan import FramePlan
from shared.manifest import MAX_LINE, Entry, checked, format_line, parse_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PIECE = 256 * 1024
"""Bytes of lines after which a piece is closed."""
MAX_PIECE = PIECE + MAX_LINE
"""Bytes of lines in the largest piece there can be."""
_BLOCK_HEADER, _CHECKSUM, _RLE = 3, 4, 1


def write_manifest(path: str, entries: Iterable[Entry]) -> str:
    """Write ``entries`` to ``path``; return the snapshot's name: SHA-256 of the lines, hex.

    Raises:
        OSError: as the filesystem says.
    """
    digest = hashlib.sha256()
    compressor = zstandard.ZstdCompressor(level=3)
    lines: list[bytes] = []
    size = 0

    def piece() -> bytes:
        text = b"".join(lines)
        digest.update(text)
        return compressor.compress(text)

    with open(path, "xb") as file:
        for entry in entries:
            line = format_line(entry)
            lines.append(line)
            size += len(line)
            if size >= PIECE:
                file.write(piece())
                lines, size = [], 0
        if lines:
            file.write(piece())
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


class ManifestFile:
    """A checked manifest, with its frame plan; holds an index of about 24 bytes a piece.

    Args:
        path: a file that :func:`write_manifest` wrote, or that an agent sent.
        name: the snapshot's name, which the lines' digest must be.
        root: the library's own name.

    Raises:
        ManifestMalformed, ManifestTooLarge, ManifestDigestWrong, IllegalPath, IllegalLink,
        EntriesOutOfOrder, ParentNotDirectory: it is not one that we take.
    """

    def __init__(self, path: str, name: str, root: bytes) -> None:
        self.path = path
        self.name = name
        self.root = root
        self._offset = array("Q")
        self._first = array("Q")
        self.plan = FramePlan()
        digest = hashlib.sha256()
        for entry in checked(self._index(digest), root):
            self.plan.add(entry)
        if digest.hexdigest() != name:
            raise ManifestDigestWrong("the manifest is not that of the snapshot", path=path)
        self._offset.append(os.path.getsize(path))

    def __iter__(self) -> Iterator[Entry]:
        """All entries in order."""
        for piece in range(len(self._first)):
            yield from self._entries(piece)

    def __reversed__(self) -> Iterator[Entry]:
        """All entries, last first: children before their parents."""
        for piece in reversed(range(len(self._first))):
            yield from reversed(self._entries(piece))

    def entries(self, first: int, count: int) -> list[Entry]:
        """``count`` entries from number ``first`` on."""
        found: list[Entry] = []
        piece = bisect_right(self._first, first) - 1
        while count > 0:
            skip = first - self._first[piece]
            lines = self._lines(piece)[skip : skip + count]
            found.extend(map(parse_line, lines))
            first, count, piece = first + len(lines), count - len(lines), piece + 1
        return found

    def _entries(self, piece: int) -> list[Entry]:
        return list(map(parse_line, self._lines(piece)))

    def _lines(self, piece: int) -> list[bytes]:
        start, end = self._offset[piece], self._offset[piece + 1]
        with open(self.path, "rb") as file:
            packed = os.pread(file.fileno(), end - start, start)
        return _unpack(packed, self.path).splitlines()

    def _index(self, digest: hashlib._Hash) -> Iterator[Entry]:
        number = 0
        for offset, text in _pieces(self.path):
            digest.update(text)
            if not text.endswith(b"\n"):
                raise ManifestMalformed("a manifest piece that ends within a line", path=self.path)
            self._offset.append(offset)
            self._first.append(number)
            for line in text.splitlines():
                number += 1
                yield parse_line(line)


def _pieces(path: str) -> Iterator[tuple[int, bytes]]:
    """Offset in the file and lines of each zstd frame, never more than one in memory."""
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < end:
            packed = os.pread(file.fileno(), MAX_PIECE, offset)
            length = _frame_length(packed, path)
            yield offset, _unpack(packed[:length], path)
            offset += length


def _unpack(packed: bytes, path: str) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise ManifestMalformed(f"a damaged manifest ({error})", path=path) from error


def _frame_length(packed: bytes, path: str) -> int:
    """Bytes of the zstd frame at the start of ``packed``, by its headers alone.

    A bomb is refused by what it declares: the decoder gives out no more than that
    (RFC 8878 sections 3.1.1.1 and 3.1.1.2).
    """
    try:
        parameters = zstandard.get_frame_parameters(packed)
        position = zstandard.frame_header_size(packed)
    except zstandard.ZstdError as error:
        raise ManifestMalformed(f"a manifest that is no zstd ({error})", path=path) from error
    if parameters.content_size > MAX_PIECE:
        raise ManifestTooLarge(f"a manifest piece of more than {MAX_PIECE} bytes", path=path)
    if parameters.content_size == 0:
        raise ManifestMalformed("an empty manifest piece", path=path)
    is_last = False
    while not is_last:
        block = int.from_bytes(packed[position : position + _BLOCK_HEADER], "little")
        is_last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        position += _BLOCK_HEADER + (1 if kind == _RLE else size)
        if position > len(packed):
            raise ManifestMalformed("a manifest that ends early", path=path)
    return position + (_CHECKSUM if parameters.has_checksum else 0)
