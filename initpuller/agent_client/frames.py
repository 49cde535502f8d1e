"""A blocking connection for frames, for a thread that does nothing else meanwhile.

In asyncio every byte of TLS is copied several times, and each 16 KiB record is a turn of the event
loop. Here OpenSSL decrypts into the buffer that the frame is unpacked from.
"""

from __future__ import annotations

from http.client import HTTPException
from typing import TYPE_CHECKING, NamedTuple

from initpuller.agent_client import error_responses
from initpuller.agent_client.connection import PinnedConnection, base_url, request_headers
from shared import errors
from shared.digest import is_hex
from shared.wire import protocol

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from initpuller.agent_client.pace import PacedResponse
    from shared.wire.pairing import Pairing

_PASSED_OVER = 16 * 1024
_MAX_PROBLEM = 64 * 1024
"""Bytes of a problem, which names at most one path."""


class Held(NamedTuple):
    """The version of a block that is on the volume."""

    tag: str
    """The digest of the block."""
    pieces: str = protocol.LATER
    """The digests of its pieces (:mod:`shared.frames.pieces`); ``LATER``: sent when asked."""


class Answer(NamedTuple):
    """The response to a request for a frame: all of it, or the pieces that differ."""

    tag: str
    """The frame's digest."""
    encoded: bytes | None = None
    """None if the frame is the version that we hold."""
    bitmap: str | None = None
    """The numbers of the pieces in :attr:`encoded`; None for a whole frame."""
    wants_pieces: bool = False
    """The frame differs from what we hold: ask again with the digests of its pieces."""


class FrameConnection:
    """Requests one frame at a time; after a failure the next request opens a new connection."""

    def __init__(self, pairing: Pairing, idle: float) -> None:
        self._base = base_url(pairing)
        self._http = PinnedConnection(pairing, idle)
        self._headers = request_headers(pairing) | {
            protocol.WANT_CONTENT_DIGEST: protocol.NO_DIGEST
        }
        self._held: Held | None = None
        self._failed: errors.PlexodusError | None = None
        self.asked: str | None = None
        """The route of the request whose response is awaited."""

    def ask(self, route: str, held: Held | None = None) -> None:
        """Request the frame at ``route``; :meth:`answer` returns it or raises the failure."""
        if self.asked is not None:  # the bytes that are still to come belong to that request
            self._http.close()
        self.asked, self._held, self._failed = route, held, None
        condition = {}
        if held is not None:
            condition = {"If-None-Match": f'"{held.tag}"', protocol.HELD_PIECES: held.pieces}
        try:
            self._http.request("GET", route, headers=self._headers | condition)
        except (HTTPException, OSError) as error:
            self._failed = error_responses.unreachable(self._base, error)
        except errors.PlexodusError as error:
            self._failed = error

    def answer(self, most: int) -> Answer:
        """Return the response, of at most ``most`` bytes.

        Raises:
            AgentUnreachable, AuthenticationError, SnapshotGone, SourceChanged, FrameTooLarge,
            ProtocolViolation.
        """
        route, self.asked = self.asked, None
        try:
            if self._failed is not None:
                raise self._failed
            response = self._http.getresponse()
            if response.status == error_responses.NOT_MODIFIED and self._held is not None:
                self._pass_over(response)
                return Answer(self._held.tag)
            is_later = self._held is not None and self._held.pieces == protocol.LATER
            if response.status == error_responses.MORE_NEEDED and is_later:
                self._pass_over(response)
                return Answer("", wants_pieces=True)
            if response.status != error_responses.OK:
                raise _failure(response)
            tag = response.headers.get("ETag", "").strip('"')
            if not is_hex(tag):
                raise errors.ProtocolViolation(
                    "the agent sent a frame without its digest", path=route
                )
            bitmap = response.headers.get(protocol.CHANGED_PIECES)
            if bitmap is not None and self._held is None:
                raise errors.ProtocolViolation(
                    "the agent sent pieces for an unconditional frame request", path=route
                )
            return Answer(tag, self._read(response, most), bitmap)
        except (HTTPException, OSError) as error:
            self._http.close()
            raise error_responses.unreachable(self._base, error) from error
        except errors.PlexodusError:
            self._http.close()
            raise

    def interrupt(self) -> None:
        """Have the call that another thread is in fail soon, and every later one."""
        self._http.interrupt()

    def close(self) -> None:
        """Close the connection; no call is under way."""
        self._http.close()

    def _pass_over(self, response: HTTPResponse) -> None:
        """Read a body that has no meaning, so that the connection can be reused.

        Raises:
            FrameTooLarge: the body is too long. A 304 has none (RFC 9110 section 15.4.5).
        """
        if len(response.read(_PASSED_OVER + 1)) > _PASSED_OVER:
            raise errors.FrameTooLarge(
                f"the agent's response {response.status} has more than {_PASSED_OVER} bytes"
            )

    def _read(self, response: PacedResponse, most: int) -> bytes:
        length = response.length
        if (length or 0) > most:
            raise errors.FrameTooLarge(
                f"the agent's response has {length} bytes; the limit is {most}"
            )
        response.allow(most)
        body = response.read(most + 1)
        if len(body) > most:
            raise errors.FrameTooLarge(f"the agent's response has more than {most} bytes")
        if length is not None and len(body) < length:
            raise HTTPException(f"the response ended after {len(body)} of {length} bytes")
        return body


def _failure(response: PacedResponse) -> errors.PlexodusError:
    is_problem = response.headers.get_content_type() == protocol.PROBLEM_TYPE
    response.allow(_MAX_PROBLEM)
    problem = response.read(_MAX_PROBLEM) if is_problem else None
    return error_responses.failure(response.status, response.reason, problem)
