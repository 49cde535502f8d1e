"""Events for the agent's migration log, from a process that has no event loop."""

from __future__ import annotations

import threading
from http.client import HTTPException
from queue import SimpleQueue
from typing import TYPE_CHECKING, NoReturn

import msgspec
import structlog

from initpuller.agent_client import error_responses
from initpuller.agent_client.connection import PinnedConnection, base_url, request_headers
from initpuller.agent_client.retry import Attempts
from shared.errors import PlexodusError
from shared.wire import protocol

if TYPE_CHECKING:
    from shared.wire.pairing import Pairing

_log = structlog.get_logger("puller")
_IDLE_SECONDS = 30.0
_PAUSES = (1.0, 5.0, 30.0, 120.0)
"""Seconds before each retry: the VM may be restarting."""


class Teller:
    """Sends events to the agent, in order and in a thread: the VM may be switched off by now.

    Once ``stopping`` is set, nothing is retried.
    """

    def __init__(self, pairing: Pairing, stopping: threading.Event) -> None:
        self._pairing = pairing
        self._stopping = stopping
        self._events = SimpleQueue[protocol.PullerEvent]()
        threading.Thread(target=self._run, daemon=True).start()

    def tell(self, event: protocol.PullerEvent) -> None:
        """Send ``event`` as soon as those before it are sent, or given up."""
        self._events.put(event)

    def _run(self) -> NoReturn:
        while True:
            event = self._events.get()
            try:
                self._send(event)
            except PlexodusError as error:
                reason = str(error)
                _log.warning("event not sent to the agent", what=event.event, reason=reason)

    def _send(self, event: protocol.PullerEvent) -> None:
        attempts = Attempts(f"event {event.event}", _PAUSES)
        while True:
            try:
                return tell(self._pairing, event)
            except PlexodusError as error:
                pause = attempts.pause_after(error)
                if pause is None or self._stopping.wait(pause):
                    raise


def tell(pairing: Pairing, event: protocol.PullerEvent) -> None:
    """Send ``event`` to the agent, which writes it into its migration log.

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
