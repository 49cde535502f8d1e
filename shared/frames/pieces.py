"""The changed pieces of one block of a large file, found by short digests of its pieces.

A database that is written here and there changes in most of its blocks of 4 MiB, but in few pieces
of 32 KiB. So whoever holds an older version of a block sends a digest of each of its pieces, and
gets only those that differ, with a bitmap of which they are. That is rsync's idea (Tridgell 1999,
chapter 3) for what does not move: pages of a database have fixed places.

Digests are cut to 8 bytes: what they say is only believed once the digest of the whole block holds.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from shared.digest import sha256

if TYPE_CHECKING:
    from shared.digest import Buffer

PIECE = 32 * 1024
_SHORT = 8
_MOST = 128
"""Pieces of the longest block."""


def format_pieces(content: Buffer) -> str:
    """The digests of all pieces of ``content``, for the request."""
    return base64.b64encode(b"".join(_digests(content))).decode()


def changed_pieces(content: Buffer, known: str) -> tuple[str, bytes] | None:
    """Bitmap and bytes of the pieces of ``content`` that ``known`` does not name.

    Args:
        content: a block as it is now.
        known: what :func:`format_pieces` made of an older version.

    Returns:
        None if ``known`` is nothing of that kind.
    """
    try:
        old = base64.b64decode(known, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(old) % _SHORT or len(old) > _MOST * _SHORT:
        return None
    view = memoryview(content)
    bitmap, changed = bytearray(_MOST // 8), []
    for number, digest in enumerate(_digests(content)):
        if old[number * _SHORT : (number + 1) * _SHORT] != digest:
            bitmap[number // 8] |= 1 << number % 8
            changed.append(view[number * PIECE : (number + 1) * PIECE])
    return bitmap.hex(), b"".join(changed)


def places(bitmap: str, length: int) -> list[tuple[int, int]] | None:
    """Offset and length of each piece that ``bitmap`` says has changed; None if it is no bitmap.

    Args:
        bitmap: as :func:`changed_pieces` made it.
        length: bytes of the block as it is now.
    """
    try:
        bits = bytes.fromhex(bitmap)
    except ValueError:
        return None
    if len(bits) != _MOST // 8:
        return None
    offsets = range(0, length, PIECE)
    found = [number for number in range(_MOST) if bits[number // 8] >> number % 8 & 1]
    if any(number >= len(offsets) for number in found):
        return None
    return [(offsets[number], min(PIECE, length - offsets[number])) for number in found]


def _digests(content: Buffer) -> list[bytes]:
    view = memoryview(content)
    return [sha256(view[offset : offset + PIECE])[:_SHORT] for offset in range(0, len(view), PIECE)]
