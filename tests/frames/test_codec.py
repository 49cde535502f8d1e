"""Frames are always encoded to the same bytes, and decoding needs no more memory than planned."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.hostile.bombs import zstd_bomb

from agent.frames.encoder import encode
from shared.errors import FrameDamaged, FrameSizeWrong, FrameTooLarge, PlexodusError
from shared.frames.codec import Encoding, decode, max_encoded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENCODINGS = st.sampled_from(Encoding)
PACKERS = {Encoding.GZIP: "gzip", Encoding.ZSTD: "zstd"}
DECODERS: dict[Encoding, Callable[[bytes, int], bytes]] = {
    Encoding.TAR: lambda encoded, size: decode(encoded, size, Encoding.TAR),
    Encoding.GZIP: lambda encoded, _: gzip.decompress(encoded),
    Encoding.ZSTD: lambda encoded, size: decode(encoded, size, Encoding.ZSTD),
}


@given(st.binary(min_size=1, max_size=5000), ENCODINGS)
def test_round_trip_always_to_the_same_bytes(tar: bytes, encoding: Encoding) -> None:
    """Decoding returns the input; the encoded bytes are the same each time and not too many."""
    encoded = bytes(encode(tar, encoding))

    assert bytes(encode(bytearray(tar), encoding)) == encoded
    assert len(encoded) <= max_encoded(len(tar))
    assert DECODERS[encoding](encoded, len(tar)) == tar


@pytest.mark.parametrize("encoding", [Encoding.TAR, Encoding.ZSTD])
@given(st.binary(min_size=2, max_size=500), st.integers(-300, 300).filter(bool))
def test_frame_of_another_size_is_refused(encoding: Encoding, tar: bytes, off: int) -> None:
    """A frame with more or fewer bytes than planned is refused."""
    planned = max(1, len(tar) + off)
    if planned == len(tar):
        return
    kind = FrameTooLarge if planned < len(tar) else FrameSizeWrong
    with pytest.raises(kind):
        decode(bytes(encode(tar, encoding)), planned, encoding)


@given(st.binary(max_size=300))
def test_garbage_frame_is_refused(garbage: bytes) -> None:
    """Any garbage raises an error of ours."""
    with pytest.raises(PlexodusError):
        decode(garbage, 1000, Encoding.ZSTD)


def test_data_after_a_frame_is_refused() -> None:
    """Trailing bytes, another frame among them, are refused."""
    encoded = bytes(encode(b"frame" * 100, Encoding.ZSTD))
    for more in (b"x", b"\0" * 600, encoded):
        with pytest.raises(FrameTooLarge):
            decode(encoded + more, 500, Encoding.ZSTD)
    with pytest.raises((FrameDamaged, FrameSizeWrong)):
        decode(encoded[:-12], 500, Encoding.ZSTD)


@pytest.mark.parametrize("encoding", PACKERS)
def test_all_frames_are_one_archive(encoding: Encoding, tmp_path: Path) -> None:
    """The system's decoder accepts the concatenation of all frames."""
    noise = random.Random(5).randbytes(300_000)  # noqa: S311 - no secret
    parts = [b"first" * 10_000, noise, bytes(100_000), bytes(range(256)) * 50]
    path = tmp_path / "archive"
    path.write_bytes(b"".join(bytes(encode(part, encoding)) for part in parts))

    program = PACKERS[encoding]
    with path.open("rb") as archive:
        subprocess.run([program, "-t"], stdin=archive, check=True, capture_output=True)
    with path.open("rb") as archive:
        done = subprocess.run([program, "-dc"], stdin=archive, check=True, capture_output=True)
    assert done.stdout == b"".join(parts)


_DECODE = """
import resource, sys
from shared.frames.codec import Encoding, decode
from shared.errors import PlexodusError
size = 1 << 20
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        encoded = file.read()
    try:
        decode(encoded, size, Encoding.ZSTD)
    except PlexodusError as error:
        print(type(error).__name__)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    """A bomb of a GiB is never held in memory, whatever size it declares."""
    gib = 1 << 30
    bombs = {
        "1-tar.zst": zstd_bomb(gib, gib),
        "2-tar.zst": zstd_bomb(gib, None),
        "3-tar.zst": zstd_bomb(gib, 1 << 20),
    }
    for name, bomb in bombs.items():
        (tmp_path / name).write_bytes(bomb)

    done = subprocess.run(
        [sys.executable, "-c", _DECODE, *sorted(bombs)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    *kinds, kilobytes = done.stdout.split()
    assert kinds == ["FrameTooLarge", "FrameTooLarge", "FrameDamaged"]
    assert int(kilobytes) < 24 * 1024
