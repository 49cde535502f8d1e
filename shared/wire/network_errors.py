"""The reasons of network failures, in words that an administrator knows.

aiohttp and urllib3 wrap the system's errors. Their own texts have the representations of contexts
and connections, with addresses in memory.
"""

from __future__ import annotations

import os
import re
import socket
import ssl

from shared.errors import printable

_OBJECT = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>:? ?")
_DEPTH = 8
"""Most errors that are around the system's own one."""


def failure_reason(error: BaseException) -> str:
    """Return why a connection failed: what the system, the resolver or OpenSSL says of it."""
    below = _innermost(error)
    if isinstance(below, ssl.SSLError) and below.reason:
        return printable(f"TLS: {below.reason.replace('_', ' ').lower()}")
    if isinstance(below, socket.gaierror):  # its number does not mean an errno(3)
        return printable(below.strerror or "unknown name")
    if isinstance(below, OSError) and below.errno:
        return os.strerror(below.errno)
    if isinstance(below, TimeoutError) and not str(below):
        return "no answer in time"
    return printable(_OBJECT.sub("", str(below))) or type(below).__name__


def _innermost(error: BaseException) -> BaseException:
    for _ in range(_DEPTH):
        held = (getattr(error, name, None) for name in ("os_error", "reason", "__cause__"))
        inside = (*held, *error.args)
        found = next((each for each in inside if isinstance(each, Exception)), None)
        if found is None:
            break
        error = found
    return error
