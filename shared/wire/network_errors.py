"""The reasons of network failures, in words that an administrator knows.

aiohttp, urllib3 and the client of Kubernetes wrap the system's errors. Their own texts have the
representations of contexts and connections, with addresses in memory.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from typing import TYPE_CHECKING

from shared.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_OBJECT = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>:? ?")
_PLACE = re.compile(r" ?\(_ssl\.c:\d+\)")
_DEPTH = 8
"""Most errors that are around the system's own one."""


def failure_reason(error: BaseException) -> str:
    """Return why a connection failed: what the system, the resolver or OpenSSL says of it."""
    chain = list(_inwards(error))
    reason = printable(_OBJECT.sub("", _words(chain[-1])).strip()) or type(chain[-1]).__name__
    is_of_proxy = any(type(each).__name__ == "ProxyError" for each in chain)
    return f"the proxy: {reason}" if is_of_proxy else reason


def _words(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, ssl.SSLError):  # its number does not mean an errno(3)
        reason = getattr(error, "reason", None)
        found = reason.replace("_", " ").lower() if reason else _PLACE.sub("", text)
        detail = getattr(error, "verify_message", "")  # of a certificate: it has expired
        return f"TLS: {found}" + (f", {detail}" if detail else "")
    if isinstance(error, socket.gaierror):  # neither does this one
        return str(error.strerror or text)
    if isinstance(error, OSError) and error.errno and error.errno in errno.errorcode:
        path = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        return os.strerror(error.errno) + path
    if isinstance(error, TimeoutError) and not text:
        return "no answer in time"
    return text


def _inwards(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error``, and what it wraps, down to the first one."""
    for _ in range(_DEPTH):
        yield error
        held = (getattr(error, name, None) for name in ("os_error", "reason", "__cause__"))
        # A system's error that was raised while another was handled is a failure of its own.
        context = None if isinstance(error, OSError) else error.__context__
        inside = (*held, *error.args, context)
        found = next((each for each in inside if isinstance(each, Exception)), None)
        if found is None:
            return
        error = found
