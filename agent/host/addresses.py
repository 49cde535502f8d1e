"""Which address of this machine others reach."""

from __future__ import annotations

import socket

from shared.errors import ConfigurationError

_ELSEWHERE = (
    (socket.AF_INET, "192.0.2.1"),  # addresses for documentation (RFC 5737, RFC 3849)
    (socket.AF_INET6, "2001:db8::1"),
)


def own_address() -> str:
    """The address that packets to elsewhere would come from; none is sent.

    Raises:
        ConfigurationError: there is no route to anywhere.
    """
    for family, elsewhere in _ELSEWHERE:
        with socket.socket(family, socket.SOCK_DGRAM) as end:
            try:
                end.connect((elsewhere, 9))
            except OSError:
                continue
            host: str = end.getsockname()[0]
            return host
    raise ConfigurationError(
        "this machine has no address that others reach", hint="Give --address HOST:PORT."
    )
