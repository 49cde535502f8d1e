"""Plex's ``/identity``, which needs no token: whether a server answers, and which one."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from shared.errors import ConfigurationError, printable
from shared.wire.network_errors import failure_reason

_SECONDS = 10.0
_MOST = 64 * 1024
_OK = 200


@dataclass(frozen=True)
class Identity:
    """A server that answers."""

    version: str
    machine_identifier: str


def check_url(url: str) -> str:
    """Return ``url`` without a slash at its end; raise ConfigurationError if it is no address."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ConfigurationError(f"not an address such as http://127.0.0.1:32400: {url!r}")
    return url.rstrip("/")


def ask_identity(url: str) -> Identity | str:
    """Ask once; return the reason instead if Plex is not up yet.

    While Plex migrates its database, it answers 503 with a status.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        connection.request("GET", f"{parts.path}/identity", headers={"Accept": "application/xml"})
        answer = connection.getresponse()
        return _read(answer.status, answer.read(_MOST))
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({failure_reason(error)})"
    finally:
        connection.close()


def _read(status: int, body: bytes) -> Identity | str:
    try:
        found = ET.fromstring(body).attrib  # noqa: S314 - the pod's own Plex, at most 64 KiB
    except ET.ParseError:
        found = {}
    if status == _OK and found.get("machineIdentifier"):
        return Identity(printable(found.get("version", "")), printable(found["machineIdentifier"]))
    said = found.get("status") or found.get("title") or "no identity"
    return f"{status}: {printable(said)}"
