"""How a frame's tar bytes are encoded: one gzip member, one zstd frame, or not at all.

Each frame is encoded alone and always to the same bytes, so any of them can be made again, and
all of them one after the other are one valid archive (RFC 1952 section 2.2, RFC 8878 section 3).
"""

from __future__ import annotations

import re
import struct
import zlib
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

import zstandard
from isal import igzip_lib

from shared.digest import sha256, sha256_of_all
from shared.errors import FrameDamaged, FrameSizeWrong, FrameTooLarge

if TYPE_CHECKING:
    from shared.digest import Buffer

_ZSTD_LEVEL = 1
"""340 to 544 MB/s in at ratio 4.0 on text; level 3 measured slower end to end."""
_ISAL_LEVEL = 1
_GZIP_SLACK, _ZSTD_SLACK = 1024, 1024
_SAMPLES, _SAMPLE = 8, 8 * 1024
"""How many pieces of a frame are tried, and the bytes of each: a sixtieth of the work."""
_WORTH = 0.95
"""A sample that stays larger than this is stored: pictures take twice as long to compress as text,
in vain. A third of the time for a library of pictures."""
_STORED_HEAD = struct.Struct("<IBI")
_MAGIC, _ONE_SEGMENT_SIZE_IN_4 = 0xFD2FB528, 0xA0
_MAX_BLOCK = 128 * 1024


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


def encode(tar: Buffer, encoding: Encoding) -> Buffer:
    """``tar`` as one frame of ``encoding``; what does not shrink is stored in it as it is."""
    if encoding is Encoding.TAR:
        return tar
    if not _shrinks(tar):
        return zlib.compress(tar, 0, 31) if encoding is Encoding.GZIP else _stored_zstd(tar)
    if encoding is Encoding.GZIP:
        return igzip_lib.compress(tar, level=_ISAL_LEVEL, flag=igzip_lib.COMP_GZIP)
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(tar)


def _shrinks(tar: Buffer) -> bool:
    view = memoryview(tar)
    step = max(_SAMPLE, len(view) // _SAMPLES)
    sample = b"".join(view[start : start + _SAMPLE] for start in range(0, len(view), step))
    packed = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(sample)
    return len(packed) <= _WORTH * len(sample)


def _stored_zstd(tar: Buffer) -> bytes:
    """A zstd frame of raw blocks (RFC 8878 sections 3.1.1.1 and 3.1.1.2)."""
    view = memoryview(tar)
    parts: list[Buffer] = [_STORED_HEAD.pack(_MAGIC, _ONE_SEGMENT_SIZE_IN_4, len(view))]
    for start in range(0, max(1, len(view)), _MAX_BLOCK):
        block = view[start : start + _MAX_BLOCK]
        is_last = start + _MAX_BLOCK >= len(view)
        parts += ((len(block) << 3 | is_last).to_bytes(3, "little"), block)
    return b"".join(parts)


@cache
def fingerprint(encoding: Encoding) -> bytes:
    """What this machine's encoder makes of a sample: other libraries or processors may differ.

    Encoders promise to be read by every decoder, not to write the same bytes in each version, nor
    with each processor's instructions. Two that agree on the sample are taken for the same.
    """
    noise = b"".join(sha256(number.to_bytes(4, "big")) for number in range(4096))
    words = noise.hex().encode()
    sample = encode(words + bytes(len(words)) + words[::3], encoding)
    return sha256_of_all(sha256(each) for each in (sample, encode(noise, encoding)))


def max_encoded(size: int) -> int:
    """The most bytes that ``size`` bytes of tar may take on the wire, in any encoding."""
    return size + size // 64 + _GZIP_SLACK + _ZSTD_SLACK


def decode(encoded: Buffer, encoding: Encoding, size: int) -> Buffer:
    """The tar bytes of one frame, which must be ``size``.

    Memory is bounded by ``size``, whatever ``encoded`` would decode to.

    Raises:
        FrameTooLarge: it decodes to more, or something follows it.
        FrameSizeWrong: it decodes to less.
        FrameDamaged: it cannot be decoded.
    """
    if encoding is Encoding.TAR:
        tar: Buffer = encoded
    elif encoding is Encoding.GZIP:
        tar = _gunzip(encoded, size)
    else:
        tar = _unzstd(encoded, size)
    length = memoryview(tar).nbytes
    if length > size:
        raise FrameTooLarge(f"a frame that decodes to more than its planned {size} bytes")
    if length < size:
        raise FrameSizeWrong(f"a frame that decodes to {length} bytes, not to {size}")
    return tar


def _gunzip(encoded: Buffer, size: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        tar = decompressor.decompress(encoded, size + 1)
    except zlib.error as error:
        raise FrameDamaged(f"a frame that is no gzip ({error})") from error
    if decompressor.unused_data:
        raise FrameTooLarge("something follows the frame's gzip member")
    return tar


def _unzstd(encoded: Buffer, size: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 23)
    declared = -1
    try:
        declared = zstandard.frame_content_size(encoded)
        if declared > size:
            raise FrameTooLarge(f"a frame that declares {declared} bytes, not {size}")
        if declared < 0:
            return decompressor.stream_reader(encoded).read(size + 1)
        return decompressor.decompress(encoded, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        if declared >= 0 and _is_followed(decompressor, encoded, size):
            raise FrameTooLarge("something follows the frame's zstd frame") from error
        raise FrameDamaged(f"a frame that is no zstd ({error})") from error


def _is_followed(decompressor: zstandard.ZstdDecompressor, encoded: Buffer, size: int) -> bool:
    """Whether all that is wrong with ``encoded`` is what comes after it."""
    try:
        decompressor.decompress(encoded, max_output_size=size, allow_extra_data=True)
    except zstandard.ZstdError:
        return False
    return True
