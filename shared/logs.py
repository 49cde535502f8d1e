"""Logging: for people on a terminal, one JSON object a line everywhere else; always to stderr.

Secrets are kept out by never being handed in; what looks like one is masked all the same.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

_SECRET = re.compile(r"plexodus://[^@\s]*@|(?i:bearer|basic)\s+[A-Za-z0-9+/=_-]{8,}")


def configure(level: int = logging.INFO) -> None:
    """Set up structlog for the whole program."""
    on_terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def without_secrets(text: str) -> str:
    """``text`` with whatever looks like a token or pairing string replaced."""
    return _SECRET.sub("[secret]", text)


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace whatever looks like a token or pairing string."""
    return {
        key: without_secrets(value) if isinstance(value, str) else value
        for key, value in event.items()
    }
