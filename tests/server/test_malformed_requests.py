"""Requests that are not HTTP, from strangers and from clients with a mistyped header.

None of them may put the token into the journal or into the answer, leave a traceback, or fill the
journal. Both of aiohttp's parsers are tried, the one in C and the one in Python.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from rig.programs import read_log
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent

PARSERS: dict[str, dict[str, str]] = {"c": {}, "python": {"AIOHTTP_NO_EXTENSIONS": "1"}}


@pytest.fixture(params=list(PARSERS))
def parsing(
    request: pytest.FixtureRequest, library: Path, new_agent: Callable[[Path], Agent]
) -> Agent:
    """Start an agent that parses requests with one of the parsers."""
    agent = new_agent(library)
    agent.pair()
    agent.start(environment=PARSERS[request.param])
    return agent


def secured(agent: Agent) -> ssl.SSLSocket:
    """Open a connection and complete its TLS handshake."""
    context = ssl.create_default_context(cafile=agent.state / "agent.crt")
    context.check_hostname = False
    return context.wrap_socket(socket.create_connection(("127.0.0.1", agent.port), 10))


def said_to(agent: Agent, *parts: bytes) -> bytes:
    """Send ``parts`` on one connection and return all that the agent answers."""
    answer = b""
    with secured(agent) as connection:
        connection.settimeout(1)
        try:
            for part in parts:
                connection.sendall(part)
            while received := connection.recv(65536):
                answer += received
        except (OSError, ssl.SSLError):  # it hung up, or waits for more
            pass
    return answer


def malformed(token: bytes) -> dict[str, list[bytes]]:
    """Return requests that no parser takes, or that no handler gets; each holds the token."""
    basic = base64.b64encode(b"user:" + token)
    head = b"GET /v1/library HTTP/1.1\r\nHost: x\r\n"
    right = b"Authorization: Bearer " + token + b"\r\n"
    post = b"POST /v1/snapshots HTTP/1.1\r\nHost: x\r\n" + right
    return {
        "nul_in_the_value": [head + b"Authorization: Bearer \0" + token + b"\r\n\r\n"],
        "space_before_the_colon": [head + b"Authorization : Bearer " + token + b"\r\n\r\n"],
        "no_colon": [head + b"Authorization Bearer " + token + b"\r\n\r\n"],
        "no_scheme": [head + token + b"\r\n\r\n"],
        "basic_without_a_name": [head + basic + b"\r\n\r\n"],
        "basic_with_a_control_character": [head + b"Authorization: Basic\1" + basic + b"\r\n\r\n"],
        "bare_line_feed": [head + b"Authorization: Bearer\n" + token + b"\r\n\r\n"],
        "bare_carriage_return": [head + b"Authorization: Bearer \r" + token + b"\r\n\r\n"],
        "folded": [head + b"Authorization: Bearer\r\n " + token + b"\r\n\r\n"],
        "not_utf_8": [head + b"Authorization: Bearer \xff\xfe" + token + b"\r\n\r\n"],
        "name_not_ascii": [head + b"Auth\xc3\xb6rization: Bearer " + token + b"\r\n\r\n"],
        "huge_header": [head + right + b"X: " + token * 1000 + b"\r\n\r\n"],
        "many_headers": [head + right + (b"X-" + token + b": y\r\n") * 5000 + b"\r\n"],
        "huge_target": [b"GET /" + token * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"],
        "token_as_method": [token + b" / HTTP/1.1\r\nHost: x\r\n\r\n"],
        "token_in_the_path": [b"GET /" + token + b" HTTP/1.1\r\nHost: x\r\n\r\n"],
        "pairing_as_target": [b"GET plexodus://" + token + b"@h:1 HTTP/1.1\r\nHost: x\r\n\r\n"],
        "pairing_encoded": [
            b"GET /plexodus%3A%2F%2F" + token + b"%40h HTTP/1.1\r\nHost: x\r\n\r\n"
        ],
        "absolute_target": [b"GET http://[" + token + b"/ HTTP/1.1\r\nHost: x\r\n\r\n"],
        "target_of_bad_port": [b"GET http://h:" + token + b"/ HTTP/1.1\r\nHost: x\r\n\r\n"],
        "bad_percent_encoding": [b"GET /%zz%" + token + b"%ff%00 HTTP/1.1\r\nHost: x\r\n\r\n"],
        "terminal_escapes": [b"GET /%1b]0;x%07%0d%0a" + token + b" HTTP/1.1\r\nHost: x\r\n\r\n"],
        "http_0_9": [b"GET /" + token + b"\r\n\r\n"],
        "http_9": [b"GET / HTTP/9.9\r\n" + right + b"\r\n"],
        "no_http": [b"\x16\x03\x01" + token + b"\r\n\r\n"],
        "http_2": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + token],
        "connect": [b"CONNECT " + token + b":1 HTTP/1.1\r\nHost: x\r\n\r\n"],
        "unknown_expectation": [head + b"Expect: " + token + b"\r\n\r\n"],
        "unknown_method": [b"FROB /v1/library HTTP/1.1\r\nHost: x\r\n" + right + b"\r\n"],
        "two_lengths": [post + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + token],
        "length_no_number": [post + b"Content-Length: " + token + b"\r\n\r\n"],
        "length_and_chunked": [
            post + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + token
        ],
        "bad_chunk_size": [post + b"Transfer-Encoding: chunked\r\n\r\n", token + b"\r\n"],
        "bad_chunk_end": [post + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx" + token],
        "bad_chunk_nobody_reads": [
            head + right + b"Transfer-Encoding: chunked\r\n\r\n",
            token + b"\r\n" + token,
        ],
        "no_gzip": [post + b"Content-Encoding: gzip\r\nContent-Length: 43\r\n\r\n", token],
        "upgrade": [head + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n" + token],
        "second_request_malformed": [
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + head + token + b"\r\n\r\n"
        ],
    }


def assert_clean(agent: Agent, token: str) -> str:
    """Return the journal: no secret, no traceback and no control character is in it."""
    journal = agent.log.read_text()
    assert token not in journal
    assert base64.b64encode(f"user:{token}".encode()).decode() not in journal
    assert "Traceback" not in journal
    assert "exception" not in journal
    for line in journal.splitlines():
        json.loads(line)
        assert line.isprintable()
    return journal


def test_malformed_requests_leave_no_secret_and_no_traceback(parsing: Agent) -> None:
    """A malformed request is never echoed, and the agent keeps serving."""
    agent = parsing
    token = agent.token
    for name, parts in malformed(token.encode()).items():
        answer = said_to(agent, *parts)
        assert token.encode() not in answer, name
        assert not answer or answer.startswith(b"HTTP/"), (name, answer)
    assert b'"ok"' in said_to(agent, b"GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n")
    assert len(assert_clean(agent, token)) < 200_000


def test_stranger_cannot_fill_the_journal(agent: Agent) -> None:
    """Hundreds of requests log some dozen lines, and the token's owner loses none."""
    long = b"x" * 7000
    started = time.monotonic()
    for number in range(300):
        bad = [
            b"\0" + long + b"\r\n\r\n",
            b"GET /" + long + b" HTTP/1.0\r\n\r\n",
            b"GET /healthz HTTP/1.0\r\n\r\n",
        ][number % 3]
        with secured(agent) as connection:
            connection.sendall(bad)
            connection.recv(100)
    seconds = time.monotonic() - started
    for _ in range(30):
        agent.get("/openapi.json")

    def left_out() -> int:
        said_to(agent, b"GET /healthz HTTP/1.0\r\n\r\n")
        return sum(line.get("left_out", 0) for line in read_log(agent.log))

    wait_until(left_out)
    assert left_out() > 100
    lines = read_log(agent.log)
    ours = [line for line in lines if line.get("path") == "/openapi.json"]
    assert len(ours) == 30
    assert len(lines) - len(ours) < 60 + 3 * seconds
    assert_clean(agent, agent.token)


def test_garbage_instead_of_tls(agent: Agent) -> None:
    """Plain HTTP, noise and broken handshakes log at most a line a second."""
    token = agent.token.encode()
    hello = bytes.fromhex("16030100700100006c0303") + bytes(20)
    for garbage in (
        b"GET / HTTP/1.1\r\nAuthorization: Bearer " + token + b"\r\n\r\n",
        token * 100,
        hello,
        hello + b"\xff" * 200,
        b"\x80\x2e\x01\x00\x02",
        b"",
    ):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", agent.port), 10) as plain:
                plain.sendall(garbage)
                plain.shutdown(socket.SHUT_WR)
                plain.settimeout(5)
                answer = b""
                try:
                    while received := plain.recv(4096):
                        answer += received
                except OSError:
                    pass
                assert token not in answer
    assert len(assert_clean(agent, agent.token).splitlines()) < 60
    agent.get("/openapi.json")
