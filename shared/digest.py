"""SHA-256 in the three spellings that are used: raw, hexadecimal, and RFC 9530's."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What can be hashed, encoded and written without a copy."""

SIZE = 32
"""Bytes of a raw digest."""
_HEX = re.compile(r"[0-9a-f]{64}")


def sha256(data: Buffer) -> bytes:
    """The raw digest of ``data``."""
    return hashlib.sha256(data).digest()


def sha256_of_all(digests: Iterable[bytes]) -> bytes:
    """One raw digest for many: that of them all in a row (Merkle, CRYPTO '87, with two levels)."""
    return sha256(b"".join(digests))


def is_hex(text: str) -> bool:
    """Whether ``text`` is a SHA-256 in lower-case hexadecimal."""
    return _HEX.fullmatch(text) is not None


def digest_field(digest: bytes) -> str:
    """A raw digest as the value of ``Content-Digest`` or ``Repr-Digest`` (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"
