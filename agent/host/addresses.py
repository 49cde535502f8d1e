"""The search for an address at which other machines reach this one."""

from __future__ import annotations

import socket

from shared.errors import ConfigurationError

_ELSEWHERE = (
    (socket.AF_INET, "192.0.2.1"),  # addresses for documentation (RFC 5737, RFC 3849)
    (socket.AF_INET6, "2001:db8::1"),
)


def own_address() -> str:
    """Return the source address of packets to other networks. No packet is sent.

    Raises:
        ConfigurationError: If there is no route to another network.
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
        "no address found at which other machines reach this one",
        hint="Set it with --address HOST:PORT.",
    )
