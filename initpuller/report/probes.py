"""Probes of a long-running program: is it alive, is it ready, how far is it."""

from __future__ import annotations

import errno
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from prometheus_client import CONTENT_TYPE_LATEST

from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 10.0
"""Seconds that a client may take for its request."""


class Probes:
    """A small HTTP server in a thread: ``/healthz``, ``/readyz``, ``/progress``, ``/metrics``.

    Args:
        address: host and port to listen on; ``::`` means every address of both families, or of
            the only one that the machine has.
        is_ready: returns whether ``/readyz`` answers 200.
        progress: returns the JSON for ``/progress``.
        metrics: returns the text for ``/metrics``.

    Raises:
        ConfigurationError: the address cannot be used.
    """

    def __init__(
        self,
        address: tuple[str, int],
        is_ready: Callable[[], bool],
        progress: Callable[[], bytes],
        metrics: Callable[[], bytes],
    ) -> None:
        class Handler(_Handler):
            answers = {  # noqa: RUF012 - one class for each server
                "/healthz": lambda: (200, b'{"status":"ok"}'),
                "/readyz": lambda: (
                    (200, b'{"status":"ready"}') if is_ready() else (503, b'{"status":"not ready"}')
                ),
                "/progress": lambda: (200, progress()),
                "/metrics": lambda: (200, metrics()),
            }

        try:
            self._server = _listening(address, Handler)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen there ({error.strerror})", path="{}:{}".format(*address)
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        """Start to answer."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


class _ServerOfBoth(ThreadingHTTPServer):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Accept IPv4 clients on ``::`` whatever the system's default (RFC 3493 section 5.3)."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _listening(address: tuple[str, int], handler: type[_Handler]) -> ThreadingHTTPServer:
    host, port = address
    if ":" not in host:
        return ThreadingHTTPServer(address, handler)
    try:
        return _ServerOfBoth(address, handler)
    except OSError as error:
        # Machines without IPv6 have no such family, or no such address.
        if host != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return ThreadingHTTPServer(("0.0.0.0", port), handler)  # noqa: S104 - the same as ``::``


class _Handler(BaseHTTPRequestHandler):
    answers: dict[str, Callable[[], tuple[int, bytes]]]
    timeout = _SECONDS

    def do_GET(self) -> None:
        """Answer a probe, without the body if that is asked for."""
        known = self.answers.get(self.path.partition("?")[0])
        status, body = known() if known is not None else (404, b'{"status":"not found"}')
        self.send_response(status)
        is_text = status == HTTPStatus.OK and self.path.startswith("/metrics")
        self.send_header("Content-Type", CONTENT_TYPE_LATEST if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - as http.server looks it up

    def log_message(self, *_: object) -> None:
        """Log nothing: probes come every few seconds."""
