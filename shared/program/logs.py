"""Logging to stderr: text for people on a terminal, one JSON object a line everywhere else.

No secret is ever passed to a log call, and anything that looks like one is masked as well. Values
often contain other people's text, so control characters are escaped and long values are cut.
Messages that libraries log through :mod:`logging` take the same path.

Three fields are bound to the context and not passed with each call: ``run`` (this process),
``snapshot`` and ``frame`` (the subject of the work). A terminal shows one run, so it leaves them
out.
"""

from __future__ import annotations

import io
import logging
import re
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

MAX_VALUE = 16_000
"""Characters of one value in a log line; our own tracebacks have fewer."""
_SECRET = re.compile(
    r"plexodus(?:://|%3A%2F%2F)[^@\s]{0,200}?(?:@|%40)|\b(?:bearer|basic)(?:\s|%20)+[A-Za-z0-9+/=_-]{8,}",
    re.IGNORECASE,
)
_LONG_WORD = re.compile(r"[A-Za-z0-9_-]{41,}")
"""A token has 43 characters; its Base64 in Basic credentials has more, of the same alphabet. After
a percent sign, its first two may be taken for the code of a character."""
_KINDS_OF_LETTERS = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))
"""One token in 1,400 lacks a digit. Hexadecimal digests have no capitals."""
_MASK = "[secret]"
_KEPT = "\n\t"
_BURST = 20.0
"""Lines of a :class:`LogLimit` that may come at once."""


class LogLimit:
    """Admit a burst of lines, then one a second, and count those left out."""

    def __init__(self) -> None:
        self.left_out = 0
        """Number of lines left out since the last one that was admitted."""
        self._earned, self._last = _BURST, 0.0

    def admit(self, now: float) -> int | None:
        """Return how many lines were left out before this one, or None to leave out this one.

        ``now`` is the time of a monotonic clock in seconds.
        """
        self._earned, self._last = min(self._earned + now - self._last, _BURST), now
        if self._earned < 1:
            self.left_out += 1
            return None
        self._earned -= 1
        left_out, self.left_out = self.left_out, 0
        return left_out


class LibraryLog(logging.Handler):
    """Log the messages of libraries as events of ours: masked, cut and limited in number."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._limit = LogLimit()

    def emit(self, record: logging.LogRecord) -> None:
        """Log ``record``, unless there were too many recently."""
        left_out = self._limit.admit(time.monotonic())
        if left_out is None:
            return
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit are no failure of the work
            said = str(record.msg)
        fields: dict[str, Any] = {"library": record.name, "said": said}
        if left_out:
            fields["left_out"] = left_out
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        structlog.get_logger(record.name).log(record.levelno, "library message", **fields)


def configure(level: int = logging.INFO) -> None:
    """Set up structlog for the whole program, and have libraries log through it."""
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        clean,
    ]
    if sys.stderr.isatty():
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        if isinstance(sys.stderr, io.TextIOWrapper):
            sys.stderr.reconfigure(encoding="utf-8")  # JSON is UTF-8 in any locale (RFC 8259)
        processors.insert(0, structlog.contextvars.merge_contextvars)
        processors.append(structlog.processors.JSONRenderer(ensure_ascii=False))
    structlog.contextvars.bind_contextvars(run=secrets.token_hex(4))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    if not any(isinstance(handler, LibraryLog) for handler in root.handlers):
        root.addHandler(LibraryLog())


def without_secrets(text: str) -> str:
    """Return ``text`` with everything that looks like a token or pairing string masked."""
    return _LONG_WORD.sub(_masked, _SECRET.sub(_MASK, text))


def clean(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask secrets, escape control characters and cut long values, in every key and value."""
    return {_clean_text(key): _clean(value) for key, value in event.items()}


def _masked(word: re.Match[str]) -> str:
    is_token = all(kind.search(word[0]) for kind in _KINDS_OF_LETTERS)
    return _MASK if is_token else word[0]


def _clean(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(each) for each in value]
    if isinstance(value, dict):
        return {_clean_text(str(key)): _clean(each) for key, each in value.items()}
    return _clean_text(value if isinstance(value, str) else str(value))


def _clean_text(text: str) -> str:
    text = without_secrets(text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in _KEPT else repr(c)[1:-1] for c in text)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}… (cut)"
