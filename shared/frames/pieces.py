"""Pieces of the blocks of large files: their digests make a block's, and tell what has changed.

Scattered writes change most of a database's 4 MiB blocks, but few of its 32 KiB pieces. So a puller
with an older version of a block sends a digest of each of its pieces. It receives only the pieces
that differ, with a bitmap of their numbers. That is rsync's idea (Tridgell 1999, chapter 3) for
content at fixed offsets, such as the pages of a database.

The request has short digests, cut to 8 bytes. The result is trusted only if the digest of the
block matches, which is that of the whole digests of its pieces. So whoever has these never hashes
what has not changed again.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from shared.digest import sha256
from shared.native import native

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.digest import Buffer

PIECE = 32 * 1024
_SHORT = 8
_MOST = 128
"""Number of pieces of the longest block."""
_BITMAP = _MOST // 8


def piece_digests(content: Buffer) -> list[bytes]:
    """Return the digests of all pieces of a block's ``content``."""
    # Each of 128 calls of hashlib waits for the interpreter's lock afterwards.
    found: list[bytes] | None = None if native is None else native.pieces(bytes(content))
    if found is not None:
        return found
    view = memoryview(content)
    return [sha256(view[offset : offset + PIECE]) for offset in range(0, len(view), PIECE)]


def format_pieces(digests: Iterable[bytes]) -> str:
    """Return the digests of all pieces in base64, for the request."""
    return base64.b64encode(shortened(digests)).decode()


def shortened(digests: Iterable[bytes]) -> bytes:
    """Return short digests in a row."""
    return b"".join(digest[:_SHORT] for digest in digests)


def changed_pieces(content: Buffer, short: bytes, known: str) -> tuple[str, bytes] | None:
    """Return the bitmap (hexadecimal) and the bytes of the pieces that differ from ``known``.

    Args:
        content: the current content of a block.
        short: the short digests of its pieces.
        known: result of :func:`format_pieces` for an older version. If malformed, return None.
    """
    try:
        old = base64.b64decode(known, validate=True)
    except ValueError:
        return None
    if len(old) % _SHORT or len(old) > _MOST * _SHORT:
        return None
    view = memoryview(content)
    bits, changed = 0, []
    for number in range(len(short) // _SHORT):
        place = slice(number * _SHORT, (number + 1) * _SHORT)
        if old[place] != short[place]:
            bits |= 1 << number
            changed.append(view[number * PIECE : (number + 1) * PIECE])
    return bits.to_bytes(_BITMAP, "little").hex(), b"".join(changed)


def places(bitmap: str, length: int) -> list[tuple[int, int]] | None:
    """Return the offset and the length of each changed piece of a block of ``length`` bytes.

    ``bitmap`` is that of :func:`changed_pieces`; return None if it is malformed.
    """
    try:
        packed = bytes.fromhex(bitmap)
    except ValueError:
        return None
    bits, offsets = int.from_bytes(packed, "little"), range(0, length, PIECE)
    if len(packed) != _BITMAP or bits >> len(offsets):
        return None
    changed = [offset for number, offset in enumerate(offsets) if bits >> number & 1]
    return [(offset, min(PIECE, length - offset)) for offset in changed]
