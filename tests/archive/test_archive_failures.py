"""A failure on the way breaks the connection, and later requests get the reason until it is gone.

No client may take a part for the whole, and none may be given an error message as content.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from rig.archive.archives import SUFFIXES, Archives, fill
from rig.archive.client import BROKEN, TIMEOUT
from rig.archive.in_process import InProcess
from rig.waiting import wait_until

from agent.frames import archive_encoding, builder
from agent.frames.encoder import encode as encode_rightly
from agent.snapshots import whole_tree
from shared.wire import protocol
from shared.wire.protocol import archive_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shared.digest import Buffer
    from shared.frames.codec import Encoding

LATE = 4
"""A frame that is not among those prepared when the first one is sent."""
WAYS: dict[str, tuple[bool, list[tuple[str, str]]]] = {
    "chunked": (False, []),
    "length": (True, []),
    "range": (True, [("Range", "bytes=0-")]),
    "close": (True, [("Connection", "close")]),
}
"""Whether the length is known beforehand, and what is asked."""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[InProcess]:
    """Start an agent for a library of six frames."""
    fill(tmp_path / "Library")
    with InProcess(tmp_path / "state", tmp_path / "Library") as agent:
        yield agent


def broken_off(agent: InProcess, path: str, headers: list[tuple[str, str]], whole: bytes) -> None:
    """Request what breaks on its way, and require a true beginning of ``whole``."""
    with agent.client.opened(path, headers) as response:
        assert response.status in (200, 206)
        got = until_it_breaks(lambda: response.read1(65536))
        assert response.length != 0
    is_beginning = whole.startswith(got)
    assert is_beginning
    assert len(got) < len(whole)


def until_it_breaks(read: Callable[[], bytes]) -> bytes:
    """Read until the end, which no client may take for a complete response."""
    got = b""
    try:
        while piece := read():
            got += piece
    except BROKEN as error:
        assert not isinstance(error, TimeoutError)  # noqa: PT017 - but not by waiting for it
    return got


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cause", ["EIO", "changed", "unknown"])
def test_failure_on_the_way(agent: InProcess, way: str, cause: str) -> None:
    """The connection breaks for each kind of length, and then the archive works again."""
    is_known, headers = WAYS[way]
    archives = Archives(agent)
    if not is_known:
        for index in agent.state.glob("snapshots/*/index.*"):
            index.unlink()
    agent.restart()
    whole, path = archives.whole["tar.gz"], archive_path(archives.snapshot, "tar.gz")
    with ExitStack() as failing:
        spoil(agent, cause, failing)
        broken_off(agent, path, headers, whole)
        if cause != "unknown":
            told = agent.client.ask(path, headers)
            assert told.status == (409 if cause == "changed" else 507 if cause == "EIO" else 500)
            assert told.problem().paths[0].startswith("Library/")
            assert agent.client.ask(path, headers, method="HEAD").status == told.status
    again = agent.client.ask(path, headers)
    is_same = again.body == whole
    assert (again.status, is_same) == (206 if way == "range" else 200, True)
    # The client may have everything a moment before the agent's handler ends.
    wait_until(lambda: agent.look(lambda: agent.streams._clients) == 0)


def spoil(agent: InProcess, cause: str, failing: ExitStack) -> None:
    """Let frame :data:`LATE` fail until ``failing`` ends."""
    if cause == "unknown":

        def fail(_archive: object, number: int) -> None:
            if number == LATE:
                raise RuntimeError("nobody has thought of this")

        agent.before_make = fail
        failing.callback(setattr, agent, "before_make", None)
        return
    folder = agent.library / "below"
    read = os.preadv
    at = 2 * 4 * 1024 * 1024
    away = folder.with_name("away")

    def refuse(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset >= at and cause == "EIO":
            raise OSError(errno.EIO, "Input/output error")
        return read(fd, buffers, offset)

    failing.enter_context(patch.object(builder, "native", None))  # it reads by itself
    failing.enter_context(patch.object(os, "preadv", refuse))
    if cause == "changed":

        def move(_archive: object, number: int) -> None:
            if number >= 1 and folder.exists():
                folder.rename(away)

        agent.before_make = move
        failing.callback(away.rename, folder)
        failing.callback(setattr, agent, "before_make", None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frame_that_is_not_what_it_was_is_not_sent(agent: InProcess, suffix: str) -> None:
    """A changed frame is cut off, and later requests get 409 with the path."""
    archives = Archives(agent)
    agent.restart()
    path = archive_path(archives.snapshot, suffix)
    read = os.preadv

    def other(fd: int, buffers: list[memoryview], offset: int) -> int:
        got = read(fd, buffers, offset)
        if offset >= 2 * 4 * 1024 * 1024:
            buffers[0][0] ^= 1
        return got

    with patch.object(builder, "native", None), patch.object(os, "preadv", other):
        broken_off(agent, path, [], archives.whole[suffix])
        for headers in ([], [("Range", "bytes=0-1")]):
            told = agent.client.ask(path, headers)
            assert (told.status, told.problem().type) == (409, protocol.SOURCE_CHANGED)
            assert told.problem().paths == ["Library/below/large"]
    is_same = agent.client.ask(path).body == archives.whole[suffix]
    assert is_same


def test_state_folder_that_is_full_for_a_while(agent: InProcess) -> None:
    """A full state folder gets 507 or a cut, and once it has space everything works."""
    path = archive_path(agent.client.snapshot(), "tar.gz")
    write = os.pwrite
    room = threading.Semaphore(LATE)

    def refuse(fd: int, data: bytes, offset: int) -> int:
        if len(data) == 64 and offset > 0 and not room.acquire(blocking=False):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data, offset)

    with patch.object(os, "pwrite", refuse):
        with agent.client.opened(path) as response, pytest.raises(BROKEN):
            response.read()
        for method, headers in (("GET", []), ("HEAD", []), ("GET", [("Range", "bytes=0-")])):
            told = agent.client.ask(path, headers, method=method)
            assert told.status == 507
            if method == "GET":
                assert told.problem().type == protocol.STORAGE
    whole = agent.client.ask(path, [("Want-Repr-Digest", "sha-256=1")])
    assert whole.status == 200
    assert "Repr-Digest" in whole.headers
    assert "Content-Length" in whole.headers


def test_problem_before_the_first_byte(agent: InProcess) -> None:
    """A failure before the first byte is a problem response at once, for each kind of request."""
    path = archive_path(agent.client.snapshot(), "tar.gz")
    (agent.library / "below" / "large").write_bytes(b"another")
    (agent.library / "text0").write_bytes(b"another")
    with agent.client.opened(path) as response, pytest.raises(BROKEN):
        response.read()
    for headers in ([], [("Range", "bytes=0-0")], [("Want-Repr-Digest", "sha-256=1")]):
        told = agent.client.ask(path, headers)
        assert (told.status, told.problem().type) == (409, protocol.SOURCE_CHANGED)
        assert told.problem().paths[0] in {"Library/below/large", "Library/text0"}


def test_encoder_that_slips(agent: InProcess) -> None:
    """An encoder's one-time difference is corrected, and a second one in a row is refused."""
    archives = Archives(agent)
    agent.restart()
    slips = threading.Semaphore(0)

    def encode(tar: Buffer, encoding: Encoding) -> Buffer:
        encoded = encode_rightly(tar, encoding)
        slipped = bytes(encoded) + bytes(encode_rightly(b"", encoding))  # decodes to the same
        return slipped if slips.acquire(blocking=False) else encoded

    with patch.object(archive_encoding, "encode", encode):
        slips.release(2)
        told = archives.get("tar.gz")
        assert (told.status, told.problem().type) == (409, protocol.SOURCE_CHANGED)
        slips.release(1)
        is_same = archives.get("tar.gz").body == archives.whole["tar.gz"]
    assert is_same
    assert not slips.acquire(blocking=False)


def test_cut_is_never_followed_by_anything(agent: InProcess) -> None:
    """After a cut, a second request on the connection gets no response."""
    archives = Archives(agent)
    agent.restart()
    path = archive_path(archives.snapshot, "tar.gz")
    with ExitStack() as failing:
        spoil(agent, "unknown", failing)
        with agent.client.asked(path) as connection:
            again = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.client.token}"
            connection.sendall(f"{again}\r\n\r\n".encode())
            connection.settimeout(TIMEOUT)
            everything = until_it_breaks(lambda: connection.recv(1 << 20))
    assert everything.count(b"HTTP/1.1 ") == 1
    is_beginning = archives.whole["tar.gz"].startswith(everything.partition(b"\r\n\r\n")[2])
    assert is_beginning


@pytest.mark.parametrize("pieces", [0, 1, 9])
def test_digests_that_are_cut_off(agent: InProcess, pieces: int) -> None:
    """``SHA256SUMS`` that cannot be read completely breaks off, without a problem in the list."""

    def sums(_snapshot: object) -> Iterator[bytes]:
        for _ in range(pieces):
            yield b"line\n"
        raise OSError(errno.EIO, "Input/output error")

    path = protocol.sums_path(agent.client.snapshot())
    with patch.object(whole_tree, "sums", sums), agent.client.asked(path) as connection:
        got = until_it_breaks(lambda: connection.recv(65536))
    assert (b"5\r\nline\n\r\n" * pieces).startswith(got.partition(b"\r\n\r\n")[2])
