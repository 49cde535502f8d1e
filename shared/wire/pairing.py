"""The pairing string of puller and agent: ``plexodus://TOKEN@host:port?fp=SHA256``.

``?trust=ca`` instead of the fingerprint means that the agent's certificate is signed by a CA.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from shared.digest import is_hex
from shared.errors import ConfigurationError

TOKEN_BYTES = 32
PAIRING_VARIABLE = "PLEXODUS_PAIRING"
"""Environment variable with the pairing string; also the name of the key in a Secret."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_HINT = "Create a new one on the VM with 'plexodus-agent pair'."
_MAX_PORT = 65535
_BY_CA = "trust=ca"


@dataclass(frozen=True)
class Pairing:
    """The agent's address, and the means by which agent and puller authenticate each other."""

    host: str
    port: int
    fingerprint: str | None
    """SHA-256 of the agent's certificate (DER) in hexadecimal; None if a CA has signed it."""
    token: str = field(repr=False)
    certificate: str = ""
    """Path of the puller's own certificate (PEM), if the agent requires one. Not in the string."""
    key: str = ""
    """Path of its key; empty if the key is in the same file."""

    def __str__(self) -> str:
        """Return the pairing string, which includes the secret token: never log it."""
        trust = _BY_CA if self.fingerprint is None else f"fp={self.fingerprint}"
        return f"plexodus://{self.token}@{address(self.host, self.port)}?{trust}"


def new_token() -> str:
    """Return a new token: 256 random bits in URL-safe characters."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def address(host: str, port: int) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and the port of ``HOST:PORT`` or ``[V6]:PORT``.

    Raises:
        ConfigurationError: If ``text`` has another form.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
        is_bare = not parts.path and not parts.query and parts.username is None
    except ValueError:
        host, port, is_bare = None, None, False
    if not host or port is None or not is_bare:
        raise ConfigurationError(f"not an address of the form HOST:PORT: {text!r}")
    return host, port


def parse_pairing(text: str) -> Pairing:
    """Parse the pairing string in ``text``, which may be surrounded by white space.

    Raises:
        ConfigurationError: If ``text`` is not a pairing string. The message never includes it.
    """
    try:
        parts = urlsplit(text.strip())
        host, port, token = parts.hostname, parts.port, parts.username
    except ValueError:
        raise ConfigurationError("the pairing string is malformed", hint=_HINT) from None
    fingerprint = parts.query.removeprefix("fp=").lower()
    if parts.scheme != "plexodus" or not host or not port or not 0 < port <= _MAX_PORT:
        raise ConfigurationError("not a pairing string (plexodus://…@host:port?fp=…)", hint=_HINT)
    if token is None or not _TOKEN.fullmatch(token):
        raise ConfigurationError("the pairing string's token is cut or mistyped", hint=_HINT)
    if parts.query == _BY_CA:
        return Pairing(host=host, port=port, fingerprint=None, token=token)
    if not parts.query.startswith("fp=") or not is_hex(fingerprint):
        raise ConfigurationError("the pairing string's fingerprint is cut or mistyped", hint=_HINT)
    return Pairing(host=host, port=port, fingerprint=fingerprint, token=token)
