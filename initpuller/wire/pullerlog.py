"""What the puller tells the agent's log, from a process that has no event loop."""

from __future__ import annotations

from http.client import HTTPException
from typing import TYPE_CHECKING

import msgspec

from initpuller.wire import answers
from initpuller.wire.agentaddress import base_url, request_headers
from initpuller.wire.pinned import PinnedConnection
from shared import protocol

if TYPE_CHECKING:
    from shared.pairing import Pairing

_IDLE_SECONDS = 30.0


def tell(pairing: Pairing, event: protocol.PullerEvent) -> None:
    """Have the agent write ``event`` into its log.

    Raises:
        AgentUnreachable, AuthenticationError, ProtocolViolation.
    """
    connection = PinnedConnection(pairing, _IDLE_SECONDS)
    try:
        body = msgspec.json.encode(event)
        connection.request("POST", protocol.LOG, body, request_headers(pairing))
        response = connection.getresponse()
        if response.status != answers.NO_CONTENT:
            raise answers.failure(response.status, response.reason, None)
    except (HTTPException, OSError) as error:
        raise answers.unreachable(base_url(pairing), error) from error
    finally:
        connection.close()
