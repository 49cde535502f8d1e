"""A blocking connection to the paired agent, for processes and threads without an event loop."""

from __future__ import annotations

import ssl
from http.client import HTTPSConnection
from typing import TYPE_CHECKING, cast

from initpuller.agent_client import error_responses
from initpuller.agent_client.address import CONNECT_SECONDS, base_url
from initpuller.agent_client.pace import PacedResponse
from initpuller.agent_client.trust import is_paired, tls_context

if TYPE_CHECKING:
    from shared.wire.pairing import Pairing


class PinnedConnection(HTTPSConnection):
    """HTTPS to the paired agent; no other server is sent a byte."""

    response_class = PacedResponse

    def __init__(self, pairing: Pairing, idle: float) -> None:
        super().__init__(
            pairing.host, pairing.port, timeout=CONNECT_SECONDS, context=tls_context(pairing)
        )
        self._pairing = pairing
        self._idle = idle

    def connect(self) -> None:
        """Connect, and check the certificate before anything is sent."""
        try:
            super().connect()
        except ssl.SSLCertVerificationError as error:
            raise error_responses.wrong_certificate(base_url(self._pairing)) from error
        found = self.sock.getpeercert(binary_form=True)
        if not is_paired(self._pairing, found):
            self.close()
            raise error_responses.wrong_certificate(base_url(self._pairing))
        self.sock.settimeout(self._idle)

    def getresponse(self) -> PacedResponse:
        """Return the response to the last request, with its head read."""
        return cast("PacedResponse", super().getresponse())
