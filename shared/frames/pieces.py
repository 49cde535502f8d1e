"""The changed pieces of one block of a large file, found by short digests of its pieces.

Scattered writes change most of a database's 4 MiB blocks, but few of its 32 KiB pieces. So a puller
with an older version of a block sends a digest of each of its pieces. It receives only the pieces
that differ, with a bitmap of their numbers. That is rsync's idea (Tridgell 1999, chapter 3) for
content at fixed offsets, such as the pages of a database.

Digests are cut to 8 bytes. The result is trusted only after the digest of the whole block matches.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from shared.digest import sha256

if TYPE_CHECKING:
    from shared.digest import Buffer

PIECE = 32 * 1024
_SHORT = 8
_MOST = 128
"""Number of pieces of the longest block."""
_BITMAP = _MOST // 8


def format_pieces(content: Buffer) -> str:
    """Return the digests of all pieces of ``content`` in base64, for the request."""
    return base64.b64encode(b"".join(_digests(content))).decode()


def changed_pieces(content: Buffer, known: str) -> tuple[str, bytes] | None:
    """Return the bitmap (hexadecimal) and the bytes of the pieces that differ from ``known``.

    Args:
        content: the current content of a block.
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
    for number, digest in enumerate(_digests(content)):
        if old[number * _SHORT : (number + 1) * _SHORT] != digest:
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


def _digests(content: Buffer) -> list[bytes]:
    view = memoryview(content)
    return [sha256(view[offset : offset + PIECE])[:_SHORT] for offset in range(0, len(view), PIECE)]
