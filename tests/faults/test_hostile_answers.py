"""Responses without bounds, too long or too slow, to a worker and to the client."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
import subprocess
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from rig.frame_plan import plan
from rig.hostile.agent import (
    HostileAgent,
    Reply,
    entry,
    folder,
    offer_lines,
    options,
    serving,
)
from rig.hostile.raw_agent import RawAgent, raw_agent
from rig.programs import Puller

from initpuller.agent_client.client import AgentClient
from initpuller.agent_client.frames import FrameConnection, Held
from initpuller.pull.options import PullContext
from initpuller.pull.passes import Passes, Scan
from initpuller.report.progress import PullProgress
from initpuller.volume.records.pull_record import PullRecord
from initpuller.volume.records.target import open_layout
from shared import errors
from shared.frames.plan import FRAME
from shared.tree.manifest import format_line
from shared.wire import protocol
from shared.wire.protocol import CutoverStanding

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from rig.hostile.agent import Offer

HEX = "0" * 64
ROUTE = protocol.frame_path(HEX, 0, "tar.zst")
MANY = 8 * 2**20
"""Bytes that no bounded answer has, with all that the kernel's buffers take."""
CHUNKED = b"Transfer-Encoding: chunked\r\n"
OK = b'HTTP/1.1 200 OK\r\nETag: "' + HEX.encode() + b'"\r\n'
CHUNK = b"10000\r\n" + bytes(65536) + b"\r\n"
PROBLEM = b"Content-Type: application/problem+json\r\n"


def without_end(head: bytes, again: bytes) -> Iterable[bytes]:
    """Return a response of ``head``, then ``again`` until the client hangs up."""
    return itertools.chain([head], itertools.repeat(again))


def byte_by_byte(head: bytes, body: bytes) -> Iterable[bytes]:
    """An answer that sends ``body`` a byte at a time: each is in time for an idle timer."""
    yield head
    for number in range(len(body)):
        time.sleep(0.2)
        yield body[number : number + 1]


WORKER: dict[str, Callable[[], Iterable[bytes]]] = {
    "continue_without_end": lambda: without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    "continue_with_headers_without_end": lambda: without_end(
        b"HTTP/1.1 100 Continue\r\n", b"X: y\r\n" * 500
    ),
    "headers_without_end": lambda: without_end(OK, b"X: y\r\n" * 500),
    "header_without_end": lambda: without_end(OK + b"X: ", b"y" * 4096),
    "reason_without_end": lambda: without_end(b"HTTP/1.1 200 ", b"y" * 4096),
    "head_byte_by_byte": lambda: byte_by_byte(b"HTTP/1.1 ", b"200 OK" + b"y" * 1000),
    "body_byte_by_byte": lambda: byte_by_byte(OK + b"Content-Length: 900\r\n\r\n", bytes(900)),
    "chunks_byte_by_byte": lambda: byte_by_byte(OK + CHUNKED + b"\r\n", b"1\r\nx\r\n" * 200),
    "body_without_end": lambda: without_end(OK + CHUNKED + b"\r\n", CHUNK),
    "chunk_size_without_end": lambda: without_end(OK + CHUNKED + b"\r\n1;x=", b"y" * 4096),
    "trailers_without_end": lambda: without_end(OK + CHUNKED + b"\r\n0\r\n", b"X: y\r\n" * 500),
    "empty_chunks_of_extensions": lambda: without_end(
        OK + CHUNKED + b"\r\n", b"1;" + b"x" * 4000 + b"\r\ny\r\n"
    ),
    "not_modified_with_a_body": lambda: without_end(
        b"HTTP/1.1 304 Not Modified\r\n" + CHUNKED + b"\r\n", CHUNK
    ),
    "more_needed_with_a_body": lambda: without_end(
        b"HTTP/1.1 428 Precondition Required\r\n" + CHUNKED + b"\r\n", CHUNK
    ),
    "more_needed_until_closed": lambda: without_end(
        b"HTTP/1.1 428 Precondition Required\r\nConnection: close\r\n\r\n", bytes(65536)
    ),
    "problem_without_end": lambda: without_end(
        b"HTTP/1.1 500 Oh\r\n" + PROBLEM + CHUNKED + b"\r\n", CHUNK
    ),
    "length_of_a_terabyte": lambda: without_end(
        OK + b"Content-Length: 1000000000000\r\n\r\n", bytes(65536)
    ),
    "problem_of_a_terabyte": lambda: without_end(
        b"HTTP/1.1 500 Oh\r\n" + PROBLEM + b"Content-Length: 1000000000000\r\n\r\n", bytes(65536)
    ),
}


@pytest.mark.parametrize("name", WORKER)
def test_worker_cuts_off_an_endless_response(tmp_path: Path, name: str) -> None:
    """An endless response fails with our own error, within limits of memory and time."""

    def answer(agent: RawAgent, connection: ssl.SSLSocket) -> None:
        """Send it."""
        for part in WORKER[name]():
            agent.send(connection, part)

    with raw_agent(tmp_path / "state", answer) as agent:
        frames = FrameConnection(agent.pairing, idle=1.0)
        frames.ask(ROUTE, Held(HEX))
        with pytest.raises((errors.AgentUnreachable, errors.IntegrityError)):
            frames.answer(100_000)
        assert agent.sent < MANY


def test_worker_takes_a_frame_over_a_slow_link(tmp_path: Path) -> None:
    """A frame at 64 kB/s, 16 times the minimum, is accepted."""
    body = os.urandom(300_000)

    def answer(agent: RawAgent, connection: ssl.SSLSocket) -> None:
        """Send it."""
        agent.send(connection, OK + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 8000):
            time.sleep(0.125)
            agent.send(connection, body[start : start + 8000])

    with raw_agent(tmp_path / "state", answer) as agent:
        frames = FrameConnection(agent.pairing, idle=1.0)
        frames.ask(ROUTE)
        assert bytes(frames.answer(400_000).encoded or b"") == body
        frames._http.close()


def test_body_longer_than_its_length(tmp_path: Path) -> None:
    """Extra bytes are not read as the response to the next request."""
    surplus = OK + b"Content-Length: 4\r\n\r\nlies"

    def answer(agent: RawAgent, connection: ssl.SSLSocket) -> None:
        """Send it."""
        agent.send(connection, OK + b"Content-Length: 4\r\n\r\ntrue and more" + surplus)

    with raw_agent(tmp_path / "state", answer) as agent:
        frames = FrameConnection(agent.pairing, idle=1.0)
        for _ in range(3):
            frames.ask(ROUTE)
            assert bytes(frames.answer(100).encoded or b"") == b"true"
        frames._http.close()


JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BOMB = gzip.compress(bytes(50_000_000))
CLIENT: dict[str, Callable[[], Iterable[bytes]]] = {
    "processing_without_end": lambda: without_end(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 500),
    "processing_at_an_honest_pace": lambda: byte_by_byte(
        b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n" * 50
    ),
    "headers_without_end": lambda: without_end(JSON, b"X: y\r\n" * 500),
    "header_without_end": lambda: without_end(JSON + b"X: ", b"y" * 4096),
    "head_byte_by_byte": lambda: byte_by_byte(b"HTTP/1.1 ", b"200 OK" + b"y" * 1000),
    "body_byte_by_byte": lambda: byte_by_byte(JSON + b"Content-Length: 900\r\n\r\n", b" " * 900),
    "body_without_end": lambda: without_end(JSON + CHUNKED + b"\r\n", CHUNK),
    "trailers_without_end": lambda: without_end(JSON + CHUNKED + b"\r\n0\r\n", b"X: y\r\n" * 500),
    "length_of_a_terabyte": lambda: without_end(
        JSON + b"Content-Length: 1000000000000\r\n\r\n", bytes(65536)
    ),
    "bomb": lambda: [
        JSON + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB
    ],
    "redirect": lambda: [
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    ],
    "problem_without_end": lambda: without_end(
        b"HTTP/1.1 500 Oh\r\n" + PROBLEM + CHUNKED + b"\r\n", CHUNK
    ),
}


@pytest.mark.parametrize("name", CLIENT)
async def test_interim_responses_do_not_extend_the_deadline(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interim responses do not extend the deadline of a short request."""
    monkeypatch.setattr("initpuller.agent_client.client._SOON_SECONDS", 3.0)

    def answer(agent: RawAgent, connection: ssl.SSLSocket) -> None:
        """Send it."""
        for part in CLIENT[name]():
            agent.send(connection, part)

    with raw_agent(tmp_path / "state", answer) as agent:
        async with AgentClient(agent.pairing, idle=1.0) as client:
            with pytest.raises((errors.AgentUnreachable, errors.IntegrityError)):
                await client.ask("GET", protocol.CUTOVER, CutoverStanding)
        await asyncio.to_thread(agent.wait_until_left)  # or nobody would close the sockets
        await asyncio.sleep(0.05)
        assert agent.sent < MANY * 4 or "processing" in name


async def test_hostile_words_in_an_error(tmp_path: Path) -> None:
    """Token, terminal escapes and a megabyte of text stay out of messages and Events."""
    state = tmp_path / "state"

    def answer(agent: RawAgent, connection: ssl.SSLSocket) -> None:
        """Send it."""
        words = f"\x1b]0;x\x07 Bearer {agent.pairing.token}\n" + "long " * 200_000
        body = msgspec.json.encode(protocol.Problem(protocol.CUTOVER_REFUSED, words, 409, words))
        head = b"HTTP/1.1 409 No\r\n" + PROBLEM + b"Content-Length: %d\r\n\r\n" % len(body)
        agent.send(connection, head + body)

    with raw_agent(state, answer) as agent:
        async with AgentClient(agent.pairing, idle=5.0) as client:
            with pytest.raises(errors.CutoverRefused) as caught:
                await client.ask("GET", protocol.CUTOVER, CutoverStanding)
        assert agent.pairing.token not in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 5000


async def test_digests_are_not_asked_for_before_the_manifest_is_checked(tmp_path: Path) -> None:
    """Digests are requested after the manifest, which limits their length."""
    offer = offer_lines(b'{"kind":"dir"}\n')
    offer.sums = [Reply(b"#" * 65536, endless=True)]
    (tmp_path / "target").mkdir()
    async with serving(tmp_path / "state", offer) as agent:
        wanted = options(tmp_path, agent.pairing)
        async with AgentClient(agent.pairing, 10) as client:
            layout = open_layout(wanted.target)
            os.makedirs(layout.folder, exist_ok=True)
            context = PullContext(PullRecord(layout), wanted, client, [], PullProgress())
            with pytest.raises(errors.ManifestMalformed):
                await Passes(context).begin(Scan("cold", is_delta=False, is_stopped=True))
        assert not [each for each in agent.requests if "SHA256SUMS" in each]


def sparse_offer(size: int) -> Offer:
    """An offer of one sparse file without any data, whose frames are refused."""
    tree = [folder(b"Library"), entry(b"Library/a", size=size, data=0)]
    planned = plan(tree)
    offer = offer_lines(b"".join(map(format_line, tree)))
    offer.snapshot |= {
        "entries": planned.entries,
        "files": planned.files,
        "content_bytes": planned.content_bytes,
        "frames": len(planned),
    }
    problem = protocol.Problem(protocol.SOURCE_CHANGED, "changed", 409)
    headers = {"Content-Type": protocol.PROBLEM_TYPE}
    offer.frames = [[Reply(msgspec.json.encode(problem), 409, headers)]] * 16
    return offer


async def _peak(root: Path, agent: HostileAgent) -> int:
    """Return the most KiB that a pull from ``agent`` has in memory."""
    (root / "target").mkdir(parents=True)
    puller = Puller(root / "target", root / "puller.log", str(agent.pairing))
    command = ["/usr/bin/env", *map(str, puller.command())]

    def run() -> int:
        with puller.log.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=puller.environment())
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 16, puller.log.read_text()
        return usage.ru_maxrss

    return await asyncio.to_thread(run)


async def test_sparse_file_of_terabytes_costs_no_memory(tmp_path: Path) -> None:
    """A manifest of 140 bytes that declares 16 TiB costs hardly any memory."""
    peaks = []
    for number, size in enumerate((2 * FRAME, 2**44 - 4 * FRAME)):
        root = tmp_path / str(number)
        async with serving(root / "state", sparse_offer(size)) as agent:
            peaks.append(await _peak(root, agent))
    assert peaks[1] - peaks[0] < 100 * 1024, peaks
