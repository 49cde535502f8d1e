"""Small compressed data that unpacks to a large size."""

from __future__ import annotations

_RLE_BLOCK = 128 * 1024
_WINDOW_8_MIB = 13 << 3


def zstd_bomb(size: int, declared: int | None) -> bytes:
    """Return a zstd frame of ``size`` zeros in RLE blocks that declares a size, or none.

    RFC 8878 sections 3.1.1.1 and 3.1.1.2.
    """
    head = b"\x00" if declared is None else b"\xc0"
    size_field = b"" if declared is None else declared.to_bytes(8, "little")
    blocks = -(-size // _RLE_BLOCK)
    last = size - (blocks - 1) * _RLE_BLOCK
    full = (2 | _RLE_BLOCK << 3).to_bytes(3, "little") + b"\0"
    end = (3 | last << 3).to_bytes(3, "little") + b"\0"
    start = b"\x28\xb5\x2f\xfd" + head + bytes([_WINDOW_8_MIB]) + size_field
    return start + full * (blocks - 1) + end
