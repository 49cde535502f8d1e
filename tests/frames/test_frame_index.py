"""The index of an archive outlives the agent, and its untrusted parts are computed again."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.frame_plan import plan
from rig.hostile.agent import entry, folder

from agent.frames import index as frame_index
from agent.frames.encoder import fingerprint
from agent.frames.index import FrameIndex, Stretch
from shared.digest import sha256
from shared.frames.codec import Encoding
from shared.frames.plan import FRAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAN = plan([folder(b"Library"), entry(b"Library/a", size=5 * FRAME + 1)])
FRAMES = len(PLAN)
ENCODED = [bytes([number]) * (100 + number) for number in range(FRAMES)]
WHOLE = b"".join(ENCODED)


@pytest.fixture
def reopened(tmp_path: Path) -> Callable[[], FrameIndex]:
    """Return the index as the next start of the agent finds it."""
    return lambda: FrameIndex(str(tmp_path / "index"), PLAN, Encoding.GZIP)


def put(index: FrameIndex, *numbers: int) -> None:
    """Add frames as they are always encoded."""
    for number in numbers:
        assert index.put(number, len(ENCODED[number]), sha256(ENCODED[number]))


def test_known_lengths_survive_reopening(reopened: Callable[[], FrameIndex]) -> None:
    """Frames added in any order are known after reopening, and at last the size."""
    known: set[int] = set()
    for number in (4, 0, 6, 2, 1, 5, 3):
        put(reopened(), number)
        known.add(number)
        index = reopened()
        assert set(index.missing()) == set(range(FRAMES)) - known
        assert index.size == (len(WHOLE) if len(known) == FRAMES else None)


def test_two_writers_share_what_they_learn(reopened: Callable[[], FrameIndex]) -> None:
    """An entry added through another index is known when it is added again."""
    one, other = reopened(), reopened()
    put(one, *range(FRAMES))
    put(other, *range(FRAMES))
    assert list(other.missing()) == []
    assert other.size == len(WHOLE)


def test_frame_with_another_digest_is_refused(reopened: Callable[[], FrameIndex]) -> None:
    """A frame with other bytes is refused, also after reopening."""
    put(reopened(), 3)
    index = reopened()
    assert not index.put(3, len(ENCODED[3]), sha256(b"other"))
    assert not index.put(3, len(ENCODED[3]) + 1, sha256(ENCODED[3]))
    put(reopened(), 3)


def test_filesystem_accepts_part_of_a_write(
    reopened: Callable[[], FrameIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame is known with its whole digest although each call writes half of its bytes."""
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: pwrite(fd, data[: (len(data) + 1) // 2], at)
    )
    put(reopened(), 3)
    put(reopened(), 3)


def test_digest_of_the_whole(reopened: Callable[[], FrameIndex]) -> None:
    """The whole's digest is known after the last frame, and out-of-order frames change nothing."""
    index = reopened()
    for number in (1, 0, 0, 3, 1, 2, 6, 3, 4, 5):
        index.add_to_whole(number, ENCODED[number])
        assert index.digest is None
    assert reopened().digest is None
    assert reopened().hashed == 0
    index.add_to_whole(6, ENCODED[6])
    assert index.digest == hashlib.sha256(WHOLE).digest()
    assert reopened().digest == index.digest


def test_disk_that_refuses_the_digest_for_a_while(
    reopened: Callable[[], FrameIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last frame can be added again when the disk takes it, and the digest is right."""
    index = reopened()
    for number in range(FRAMES - 1):
        index.add_to_whole(number, ENCODED[number])

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("os.pwrite", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                index.add_to_whole(index.hashed, ENCODED[-1])
            assert index.digest is None
    index.add_to_whole(index.hashed, ENCODED[-1])
    assert index.digest == hashlib.sha256(WHOLE).digest()


@pytest.mark.parametrize("damage", ["encoder", "torn", "short", "long", "empty", "gone", "zeros"])
def test_damaged_index_is_discarded(
    reopened: Callable[[], FrameIndex], tmp_path: Path, damage: str
) -> None:
    """An index of another encoder, torn or too long is emptied."""
    index = reopened()
    put(index, *range(FRAMES))
    for number in range(FRAMES):
        index.add_to_whole(number, ENCODED[number])
    file = tmp_path / "index"
    content = file.read_bytes()
    assert len(content) == 64 * (FRAMES + 2)
    if damage == "gone":
        file.unlink()
    elif damage != "encoder":
        damaged = {
            "torn": content[:-1],
            "short": content[:-64],
            "long": content + bytes(64),
            "empty": b"",
            "zeros": bytes(len(content)),
        }
        file.write_bytes(damaged[damage])
    encoder = b"x" * 32 if damage == "encoder" else fingerprint(Encoding.GZIP)
    with patch.object(frame_index, "fingerprint", return_value=encoder):
        index = reopened()
    assert list(index.missing()) == list(range(FRAMES))
    assert (index.size, index.digest) == (None, None)
    assert index.put(0, 7, sha256(b"another"))


def test_lengths_of_a_tar_are_computed(tmp_path: Path) -> None:
    """The size of a tar is known before its first entry."""
    index = FrameIndex(str(tmp_path / "index"), PLAN, Encoding.TAR)
    assert index.size == sum(frame.size for frame in PLAN)
    assert list(index.missing()) == []
    assert index.put(0, PLAN[0].size, sha256(b"a"))
    assert not FrameIndex(str(tmp_path / "index"), PLAN, Encoding.TAR).put(
        0, PLAN[0].size, sha256(b"b")
    )


@pytest.mark.parametrize("encoding", Encoding)
def test_disk_is_not_waited_for_at_every_frame(
    tmp_path: Path, encoding: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames are synced in batches and at the end, in each encoding."""
    synced: list[Any] = []
    monkeypatch.setattr("os.fdatasync", synced.append)
    index = FrameIndex(str(tmp_path / "index"), PLAN, encoding)
    put(index, *range(FRAMES))
    assert len(synced) <= 1


@given(st.data())
def test_every_byte_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Each stretch is exactly the bytes of its part of the whole."""
    index = FrameIndex(str(tmp_path_factory.mktemp("index") / "index"), PLAN, Encoding.ZSTD)
    assert index.stretch(None) == Stretch(0, 0, FRAMES - 1, None)
    with pytest.raises(LookupError):
        index.stretch(range(1))
    put(index, *range(FRAMES))
    edges = [sum(map(len, ENCODED[:number])) for number in range(FRAMES + 1)]
    places = st.one_of(st.integers(0, len(WHOLE)), st.sampled_from(edges))
    start, stop = sorted((data.draw(places), data.draw(places)))
    if start == stop:
        return
    found = index.stretch(range(start, stop))
    assert found.stop is not None
    pieces = [*ENCODED[found.first : found.last], ENCODED[found.last][: found.stop]]
    assert b"".join(pieces)[found.skip :] == WHOLE[start:stop]
    assert 0 <= found.skip < len(ENCODED[found.first])
    assert 0 < found.stop <= len(ENCODED[found.last])


_LARGE = """
import os, sys
from rig.frame_plan import plan
from rig.hostile.agent import entry, folder
from agent.frames.index import FrameIndex
from bench.processes import peak_kib
from shared.frames.codec import Encoding
from shared.frames.plan import FRAME

large = plan([folder(b"Library"), entry(b"Library/a", size=int(sys.argv[2]) * FRAME)])
before = peak_kib(os.getpid())
index = FrameIndex(sys.argv[1], large, Encoding.ZSTD)
index.put(len(large) - 1, 7, bytes(32))
again = FrameIndex(sys.argv[1], large, Encoding.ZSTD)
assert sum(1 for _ in again.missing()) == len(large) - 1
print(peak_kib(os.getpid()) - before)
"""


def test_index_of_terabytes_fits_into_memory(tmp_path: Path) -> None:
    """The agent of a library of 4 TB is not killed for its memory when it serves the first frame.

    An index takes 8 bytes a frame. Its file, of 64 bytes a frame, was read as a whole.
    """
    frames = 1_000_000
    command: list[str | Path] = [sys.executable, "-c", _LARGE, tmp_path / "index", str(frames)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert int(done.stdout) * 1024 < 32 * frames
