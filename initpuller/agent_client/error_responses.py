"""The errors that the agent's responses and silence stand for."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from shared import errors, typed_json
from shared.program.logs import without_secrets
from shared.wire import protocol
from shared.wire.network_errors import failure_reason

T = TypeVar("T")

OK, CREATED, NO_CONTENT, NOT_MODIFIED = 200, 201, 204, 304
MORE_NEEDED = 428
_MAX_WORDS = 1000
"""Characters of the agent's text in one of our messages."""
_STOP_PLEX = "Is Plex really stopped? Stop it and run again."
_UNAUTHORIZED, _TOO_MANY, _SERVER_ERROR = 401, 429, 500


def decode_answer(body: bytes, kind: type[T]) -> T:
    """Return the JSON in ``body``, decoded as a ``kind``, or raise ProtocolViolation."""
    try:
        return typed_json.decode(body, kind)
    except msgspec.DecodeError as error:
        raise errors.ProtocolViolation(
            f"the agent's response cannot be read ({_words(str(error))})"
        ) from error


def failure(status: int, reason: str, problem: bytes | None) -> errors.PlexodusError:
    """Return the error for a response whose status is not the expected one.

    ``problem`` is the body, if its type is ``application/problem+json`` (RFC 9457).
    """
    if status == _UNAUTHORIZED:
        return errors.AuthenticationError(
            "the agent does not accept the token",
            hint="If the agent was paired again, give the puller the new pairing string.",
        )
    told = protocol.Problem(protocol.ABOUT_BLANK, reason, status)
    if problem is not None:
        told = decode_answer(problem, protocol.Problem)
    told = msgspec.structs.replace(told, title=_words(told.title), detail=_words(told.detail))
    path = told.paths[0] if told.paths else None
    if told.type == protocol.SOURCE_UNREADABLE:
        return errors.SourceUnreadable([errors.printable(each) for each in told.paths])
    if told.type == protocol.SOURCE_CHANGED:
        return errors.SourceChanged(told.title, path=path, hint=told.detail or _STOP_PLEX)
    if told.type == protocol.NO_SUCH_SNAPSHOT:
        return errors.SnapshotGone(told.title)
    if told.type == protocol.CUTOVER_ENDED:
        return errors.CutoverEnded(told.title)
    if told.type == protocol.CUTOVER_REFUSED:
        return errors.CutoverRefused(f"on the VM: {told.title}", path=path, hint=told.detail)
    if told.type == protocol.STORAGE:
        return errors.AgentStorageError(f"on the agent's side: {told.title}", path=path)
    if status >= _SERVER_ERROR or status == _TOO_MANY:
        return errors.AgentUnreachable(f"the agent answered {status}: {told.title}")
    return errors.ProtocolViolation(f"the agent answered {status}: {told.title}")


def wrong_certificate(base: str) -> errors.AuthenticationError:
    """Return the error for an agent at ``base`` that is not the paired one."""
    return errors.AuthenticationError(
        "the agent's certificate is not the paired one",
        path=base,
        hint="Is this the right machine? If it has a new certificate, pair again. One from a"
        " CA must be valid for this name; SSL_CERT_FILE says which CAs are trusted.",
    )


def unreachable(base: str, error: BaseException) -> errors.AgentUnreachable:
    """Return the error for an agent at ``base`` that did not answer, or stopped answering."""
    return errors.AgentUnreachable(
        f"the agent did not answer ({_words(failure_reason(error))})",
        path=base,
        hint="Does 'plexodus-agent serve' run there, is the port open, and does its log say that it"
        " wants a client certificate?",
    )


def _words(text: str) -> str:
    """Return the agent's ``text`` without secrets and control characters, cut to a length."""
    words = errors.printable(without_secrets(text))
    return words if len(words) <= _MAX_WORDS else f"{words[:_MAX_WORDS]}… (cut)"
