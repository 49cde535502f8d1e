"""A strict client of archives: Python's own HTTP over TLS, with a connection a request."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from email.message import Message
    from pathlib import Path

TIMEOUT = 120.0
BROKEN = (http.client.HTTPException, OSError)
"""Errors that end the reading of a response that was cut off."""


@dataclass(frozen=True)
class Answer:
    """A complete response."""

    status: int
    headers: Message
    body: bytes

    def problem(self) -> protocol.Problem:
        """Return the body of a failure."""
        assert self.headers["Content-Type"] == protocol.PROBLEM_TYPE
        return protocol.Problem(**json.loads(self.body))


class _Response(http.client.HTTPResponse):
    """Skips all interim responses (RFC 9110 section 15.2); the base class knows only 100."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if status[1] >= 200:
                return status
            http.client.parse_headers(self.fp)


class ArchiveClient:
    """Sends requests to one agent, and checks its certificate.

    Args:
        port: the agent's port on 127.0.0.1.
        state: the agent's state folder, which has the certificate.
        token: the token of its pairing.
    """

    def __init__(self, port: int, state: Path, token: str) -> None:
        self.port = port
        self.token = token
        self._tls = ssl.create_default_context(cafile=state / "agent.crt")

    def ask(
        self, path: str, headers: Sequence[tuple[str, str]] = (), *, method: str = "GET"
    ) -> Answer:
        """Return the whole response.

        Raises:
            HTTPException, OSError: If it ends early, see :data:`BROKEN`.
        """
        with self.opened(path, headers, method=method) as response:
            return Answer(response.status, response.msg, response.read())

    def part(self, path: str, what: str) -> Answer:
        """Return the response to ``Range: bytes=<what>``."""
        return self.ask(path, [("Range", f"bytes={what}")])

    @contextmanager
    def opened(
        self,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        *,
        method: str = "GET",
        buffer: int | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield a response whose body is not read yet. The end of the block hangs up."""
        with self.asked(path, headers, method=method, buffer=buffer) as connection:
            response = _Response(connection, method=method)
            try:
                response.begin()
                yield response
            finally:
                response.close()

    @contextmanager
    def asked(
        self,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        *,
        method: str = "GET",
        buffer: int | None = None,
        version: str = "HTTP/1.1",
    ) -> Iterator[ssl.SSLSocket]:
        """Yield a connection on which the request was sent and nothing was read.

        The end of the block hangs up.

        Args:
            path: path of the request.
            headers: header fields besides ``Host`` and the token.
            method: method of the request.
            buffer: size of the kernel's receive buffer in bytes. With a small one the agent notices
                early that the client does not read.
            version: HTTP version in the request line.
        """
        lines = [
            f"{method} {path} {version}",
            "Host: plexodus-agent",
            f"Authorization: Bearer {self.token}",
            *(f"{name}: {value}" for name, value in headers),
        ]
        with socket.socket() as plain:
            if buffer is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            plain.settimeout(TIMEOUT)
            plain.connect(("127.0.0.1", self.port))
            with self._tls.wrap_socket(plain, server_hostname="plexodus-agent") as connection:
                connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
                yield connection

    def snapshot(self) -> str:
        """Return the name of the library's snapshot, from the redirect of the path for scripts."""
        answer = self.ask(protocol.LIBRARY_ARCHIVE)
        assert answer.status == 307, answer.body
        return urllib.parse.urlsplit(answer.headers["Location"]).path.split("/")[3]
