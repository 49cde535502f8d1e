"""The address and headers of every request to the agent, whichever HTTP library sends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared import __version__
from shared.wire.pairing import address

if TYPE_CHECKING:
    from shared.wire.pairing import Pairing

CONNECT_SECONDS = 10.0
"""Seconds after which a connection attempt is given up."""


def base_url(pairing: Pairing) -> str:
    """Return the agent's URL without a path."""
    return f"https://{address(pairing.host, pairing.port)}"


def request_headers(pairing: Pairing) -> dict[str, str]:
    """Return the headers that name the puller and carry the token (RFC 6750)."""
    return {
        "Authorization": f"Bearer {pairing.token}",
        "User-Agent": f"plexodus-puller/{__version__}",
    }
