"""The Plex server on this machine: its version, and whether it is running."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import urllib.request
from contextlib import suppress

from shared.plex.version import PlexVersion, find_version
from shared.regular_file import open_regular

_IDENTITY = ("127.0.0.1", 32400)
_PACKAGE = "plexmediaserver"
_LOG = "Logs/Plex Media Server.log"
_LOG_HEAD = 64 * 1024
"""Bytes of the log to read. The version is in one of the first lines."""
_SECONDS = 5.0


def installed_version(server: str) -> PlexVersion | None:
    """Return the version from the running server, the package manager or the log in ``server``."""
    for ask in (_from_identity, _from_package, lambda: _from_log(server)):
        if (found := ask()) is not None:
            return found
    return None


def is_running() -> bool:
    """Return whether a process listens on Plex's port."""
    with socket.socket() as end:
        end.settimeout(_SECONDS)
        return end.connect_ex(_IDENTITY) == 0


def _from_identity() -> PlexVersion | None:
    """Return the version that the running server reports at ``/identity``, which needs no token."""
    with suppress(OSError, ValueError):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open("http://{}:{}/identity".format(*_IDENTITY), timeout=_SECONDS) as answer:
            text = answer.read(_LOG_HEAD).decode(errors="replace")
        # The XML declaration also has an attribute "version", so match the element's.
        if found := re.search(r'<MediaContainer\b[^>]*\bversion="([^"]*)"', text):
            return find_version(found[1])
    return None


def _from_package() -> PlexVersion | None:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 - the arguments are constants
            ["dpkg-query", "--show", "--showformat=${Version}", _PACKAGE],  # noqa: S607
            check=True,
            capture_output=True,
            timeout=_SECONDS,
            text=True,
        )
        return find_version(done.stdout)
    return None


def _from_log(server: str) -> PlexVersion | None:
    path = os.path.join(server, _LOG)
    with suppress(OSError), os.fdopen(open_regular(path, follow_symlinks=True), "rb") as file:
        head = file.read(_LOG_HEAD).decode(errors="replace")
        if found := re.search(r"Plex Media Server (v\S+)", head):
            return find_version(found[1])
    return None
