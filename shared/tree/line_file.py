"""A file of lines in zstd frames of whole lines, written and read piece by piece.

Manifests and lists of omitted entries have this form. A reader never holds more than one piece.
Concatenated zstd frames are one zstd file (RFC 8878 section 3), so ``zstd -dc`` prints all lines.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import zstandard

from shared.positional_io import read_at
from shared.tree.manifest import MAX_LINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shared.errors import IntegrityError

PIECE = 256 * 1024
"""Bytes of lines after which a piece is closed."""
MAX_PIECE = PIECE + MAX_LINE
"""Bytes of lines in the largest piece there can be."""
_FEW = 64 * 1024
"""Bytes by which a piece may be longer without a line that is long itself."""
_LEVEL = 1
"""Of zstd: 3 made a manifest a tenth smaller, and took three times as long."""
_BLOCK_HEADER, _CHECKSUM, _RLE = 3, 4, 1


@dataclass(frozen=True, slots=True)
class LineFormat:
    """A kind of lines, for error messages, and the errors of a damaged file."""

    name: str
    malformed: type[IntegrityError]
    too_large: type[IntegrityError]


class LineWriter:
    """Writes the new file ``path``; calls ``see`` with the offset and the lines of each piece."""

    def __init__(self, path: str, see: Callable[[int, bytes], object] = lambda *_: None) -> None:
        self._file = open(path, "xb")  # noqa: SIM115 - closed with the writer
        self._see = see
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL)
        self._lines: list[bytes] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add_lines(self, text: bytes) -> None:
        """Append ``text``: a line, or up to 1.25 MiB of lines, all with their newlines."""
        if self._lines and self._size + len(text) > PIECE + _FEW:
            self._close_piece()
        self._lines.append(text)
        self._size += len(text)
        if self._size >= PIECE:
            self._close_piece()

    def sync(self) -> int:
        """Make the file durable, which has all its lines; return its bytes.

        Without a line it has one empty piece: tools take an empty file for a damaged one.
        """
        if self._lines or not self._file.tell():
            self._close_piece()
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def _close_piece(self) -> None:
        text = b"".join(self._lines)
        self._see(self._file.tell(), text)
        self._file.write(self._zstd.compress(text))
        self._lines.clear()
        self._size = 0


def read_pieces(path: str, form: LineFormat) -> Iterator[tuple[int, bytes]]:
    """Yield offset and lines of each zstd frame in ``path``, or raise an error of ``form``."""
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < end:
            packed = read_at(file.fileno(), MAX_PIECE, offset)
            length = _frame_length(packed, path, form)
            yield offset, unpack(packed[:length], path, form)
            offset += length


def unpack(packed: bytes, path: str, form: LineFormat) -> bytes:
    """Return the lines in one zstd frame; raise ``form.malformed`` if it is damaged."""
    try:
        return zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise form.malformed(f"the {form.name} is damaged ({error})", path=path) from error


def _frame_length(packed: bytes, path: str, form: LineFormat) -> int:
    """Return the bytes of the zstd frame at the start of ``packed``, by its headers alone.

    A bomb is refused by what it declares: the decoder gives out no more than that
    (RFC 8878 sections 3.1.1.1 and 3.1.1.2).
    """
    try:
        parameters = zstandard.get_frame_parameters(packed)
        position = zstandard.frame_header_size(packed)
    except zstandard.ZstdError as error:
        raise form.malformed(f"the {form.name} is not zstd ({error})", path=path) from error
    if parameters.content_size > MAX_PIECE:
        raise form.too_large(f"a piece of the {form.name} has over {MAX_PIECE} bytes", path=path)
    is_last = False
    while not is_last:
        block = int.from_bytes(packed[position : position + _BLOCK_HEADER], "little")
        is_last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        position += _BLOCK_HEADER + (1 if kind == _RLE else size)
        if position > len(packed):
            raise form.malformed(f"the {form.name} ends early", path=path)
    return position + (_CHECKSUM if parameters.has_checksum else 0)
