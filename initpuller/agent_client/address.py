"""What every request to the paired agent has in common, whichever library sends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared import __version__
from shared.wire.pairing import address

if TYPE_CHECKING:
    from shared.wire.pairing import Pairing

CONNECT_SECONDS = 10.0
"""After which an address counts as one where nobody listens."""


def base_url(pairing: Pairing) -> str:
    """Where the agent is, without a path."""
    return f"https://{address(pairing.host, pairing.port)}"


def request_headers(pairing: Pairing) -> dict[str, str]:
    """Who asks, and the token (RFC 6750)."""
    return {
        "Authorization": f"Bearer {pairing.token}",
        "User-Agent": f"plexodus-puller/{__version__}",
    }
