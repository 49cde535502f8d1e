"""The encodings of a frame's tar bytes, and how the puller decodes a frame.

A frame is one gzip member, one zstd frame, or plain tar. It is encoded alone, so all frames of a
snapshot, one after the other, are one valid archive (RFC 1952 section 2.2, RFC 8878 section 3).
The puller asks for zstd, or for plain tar where the network is faster than zstd.
:mod:`agent.frames.encoder` is the other direction.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING

import zstandard

from shared.errors import FrameDamaged, FrameSizeWrong, FrameTooLarge

if TYPE_CHECKING:
    from shared.digest import Buffer

_SLACK = 2048


class Encoding(Enum):
    """The suffix that a frame's or archive's URL ends in."""

    TAR = "tar"
    GZIP = "tar.gz"
    ZSTD = "tar.zst"

    @property
    def media_type(self) -> str:
        """The value of ``Content-Type``."""
        return _MEDIA_TYPES[self]


SUFFIX_PATTERN = "|".join(re.escape(encoding.value) for encoding in Encoding)
"""A regular expression for the suffix of any encoding."""
_MEDIA_TYPES = {
    Encoding.TAR: "application/x-tar",
    Encoding.GZIP: "application/gzip",
    Encoding.ZSTD: "application/zstd",
}


def max_encoded(size: int) -> int:
    """Return the largest number of bytes that ``size`` bytes of tar may take, in any encoding."""
    return size + size // 64 + _SLACK


def decode(encoded: bytes, size: int, encoding: Encoding) -> bytes:
    """Return the tar bytes of one frame, which must be ``size`` bytes. It is zstd or plain tar.

    Memory is bounded by ``size``, whatever length ``encoded`` claims or has.

    Raises:
        FrameTooLarge: It decodes to more, or something follows it.
        FrameSizeWrong: It decodes to less.
        FrameDamaged: It cannot be decoded.
    """
    tar = encoded if encoding is Encoding.TAR else _unzstd(encoded, size)
    if len(tar) > size:
        raise FrameTooLarge(f"a frame decodes to more than its planned {size} bytes")
    if len(tar) < size:
        raise FrameSizeWrong(f"a frame decodes to {len(tar)} bytes, not to {size}")
    return tar


def _unzstd(encoded: Buffer, size: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 23)
    declared = -1
    try:
        declared = zstandard.frame_content_size(encoded)
        if declared > size:
            raise FrameTooLarge(f"a frame declares {declared} bytes, not {size}")
        if declared < 0:
            return decompressor.stream_reader(encoded).read(size + 1)
        return decompressor.decompress(encoded, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        if declared >= 0 and _is_followed(decompressor, encoded, size):
            raise FrameTooLarge("something follows the frame's zstd frame") from error
        raise FrameDamaged(f"a frame cannot be decoded ({error})") from error


def _is_followed(decompressor: zstandard.ZstdDecompressor, encoded: Buffer, size: int) -> bool:
    """Return whether ``encoded`` is a valid zstd frame with other bytes after it."""
    try:
        decompressor.decompress(encoded, max_output_size=size, allow_extra_data=True)
    except zstandard.ZstdError:
        return False
    return True
