"""SHA-256 digests in three spellings: raw, hexadecimal, and that of RFC 9530."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes that can be hashed, encoded and written without a copy."""

SIZE = 32
"""Length of a raw digest, in bytes."""
_HEX = re.compile(r"[0-9a-f]{64}")


def sha256(data: Buffer) -> bytes:
    """Return the raw digest of ``data``."""
    return hashlib.sha256(data).digest()


def sha256_of_all(digests: Iterable[bytes]) -> bytes:
    """Return the raw digest of all ``digests`` joined (Merkle, CRYPTO '87, with two levels)."""
    return sha256(b"".join(digests))


def is_hex(text: str) -> bool:
    """Return whether ``text`` is a SHA-256 in lower-case hexadecimal."""
    return _HEX.fullmatch(text) is not None


def digest_field(digest: bytes) -> str:
    """Return a raw digest as the value of ``Content-Digest`` or ``Repr-Digest`` (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"
