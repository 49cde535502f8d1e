"""The way to the paired agent: its URL, the headers and TLS of a request, a blocking connection."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from http.client import HTTPSConnection
from typing import TYPE_CHECKING, cast

from initpuller.agent_client import error_responses
from initpuller.agent_client.pace import PacedResponse
from shared import __version__
from shared.digest import sha256
from shared.errors import ConfigurationError
from shared.wire.pairing import address

if TYPE_CHECKING:
    from shared.wire.pairing import Pairing

CONNECT_SECONDS = 10.0
"""Seconds after which a connection attempt is given up."""


def base_url(pairing: Pairing) -> str:
    """Return the agent's URL without a path."""
    return f"https://{address(pairing.host, pairing.port)}"


def request_headers(pairing: Pairing) -> dict[str, str]:
    """Return the headers that name the puller and carry the token (RFC 6750)."""
    return {
        "Authorization": f"Bearer {pairing.token}",
        "User-Agent": f"plexodus-puller/{__version__}",
    }


def tls_context(pairing: Pairing) -> ssl.SSLContext:
    """Return the TLS context for the agent, with the puller's certificate if there is one.

    A pinned agent's certificate is checked after the handshake, because its fingerprint replaces
    the chain of certificates. Otherwise OpenSSL verifies the name and the chain, with the system's
    CAs or those in SSL_CERT_FILE.

    Raises:
        ConfigurationError: the puller's certificate cannot be used.
    """
    if pairing.fingerprint is None or pairing.certificate:
        # OpenSSL completes the chain of the puller's own certificate with these CAs, too.
        context = ssl.create_default_context()
    else:  # without the system's CAs, which take 25 ms to load
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if pairing.fingerprint is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pairing.certificate:
        try:
            context.load_cert_chain(pairing.certificate, pairing.key or None, lambda: "")
        except OSError as error:  # SSLError among them
            raise ConfigurationError(
                f"the client certificate cannot be used ({error.strerror or error})",
                path=pairing.certificate,
            ) from error
    return context


class PinnedConnection(HTTPSConnection):
    """HTTPS to the paired agent, without an event loop; no other server is sent a byte.

    Args:
        pairing: the agent's address and the secrets.
        idle: seconds without a byte after which a request is given up.
    """

    response_class = PacedResponse

    def __init__(self, pairing: Pairing, idle: float) -> None:
        super().__init__(
            pairing.host, pairing.port, timeout=CONNECT_SECONDS, context=tls_context(pairing)
        )
        self._pairing = pairing
        self._idle = idle
        self._is_interrupted = False

    def interrupt(self) -> None:
        """End what another thread does with the connection, and every later attempt to connect.

        A thread that connects notices it when the connection is there.
        """
        self._is_interrupted = True
        connected = self.sock
        if connected is not None:
            with suppress(OSError):  # the thread has just closed it
                # SSLSocket.shutdown() drops TLS first: that thread could send unencrypted bytes.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def connect(self) -> None:
        """Connect, and check the certificate before anything is sent."""
        try:
            super().connect()
        except ssl.SSLCertVerificationError as error:
            raise error_responses.wrong_certificate(base_url(self._pairing)) from error
        found = self.sock.getpeercert(binary_form=True)
        pinned = self._pairing.fingerprint
        if not found or (pinned is not None and sha256(found).hex() != pinned):
            self.close()
            raise error_responses.wrong_certificate(base_url(self._pairing))
        self.sock.settimeout(self._idle)
        if self._is_interrupted:
            self.close()
            raise ConnectionAbortedError("the request was given up")

    def getresponse(self) -> PacedResponse:
        """Return the response to the last request, with its head read."""
        return cast("PacedResponse", super().getresponse())
