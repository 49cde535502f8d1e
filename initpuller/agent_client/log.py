"""What the puller tells the agent's log, from a process that has no event loop."""

from __future__ import annotations

import threading
from http.client import HTTPException
from queue import SimpleQueue
from typing import TYPE_CHECKING, NoReturn

import msgspec
import structlog

from initpuller.agent_client import error_responses
from initpuller.agent_client.address import base_url, request_headers
from initpuller.agent_client.connection import PinnedConnection
from shared.errors import PlexodusError, Temporary
from shared.wire import protocol

if TYPE_CHECKING:
    from shared.wire.pairing import Pairing

_log = structlog.get_logger("puller")
_IDLE_SECONDS = 30.0
_PAUSES = (1.0, 5.0, 30.0, 120.0)
"""Seconds between the tries."""


class Teller:
    """Tells the agent one event after the other, in a thread of its own: the VM may be off by now.

    Args:
        pairing: of the agent.
        stopping: once it is set, nothing is tried again.
    """

    def __init__(self, pairing: Pairing, stopping: threading.Event) -> None:
        self._pairing = pairing
        self._stopping = stopping
        self._events = SimpleQueue[protocol.PullerEvent]()
        threading.Thread(target=self._run, daemon=True).start()

    def tell(self, event: protocol.PullerEvent) -> None:
        """Have it told."""
        self._events.put(event)

    def _run(self) -> NoReturn:
        while True:
            event = self._events.get()
            reason = self._try(event)
            if reason:
                _log.warning("the agent could not be told", what=event.event, reason=reason)

    def _try(self, event: protocol.PullerEvent) -> str:
        """Why it could not be told; empty if it was."""
        for pause in (*_PAUSES, None):
            try:
                tell(self._pairing, event)
            except PlexodusError as error:
                is_over = pause is None or not isinstance(error, Temporary)
                if is_over or self._stopping.wait(pause):
                    return str(error)
            else:
                return ""
        return ""


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
        if response.status != error_responses.NO_CONTENT:
            raise error_responses.failure(response.status, response.reason, None)
    except (HTTPException, OSError) as error:
        raise error_responses.unreachable(base_url(pairing), error) from error
    finally:
        connection.close()
