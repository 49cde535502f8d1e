"""A Plex that takes too long to start: how long that is, and what its log says."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.errors import printable
from shared.plex.library import DATABASE_FOLDER, DATABASES
from shared.regular_file import open_regular

if TYPE_CHECKING:
    from typing import BinaryIO

BASE_SECONDS = 600.0
"""Time for any start."""
BYTES_PER_SECOND = 1e6
"""Slowest migration of a database that is still taken for progress. Each step of a migration may
rewrite the whole database, on a volume with a tenth of the speed of a disk."""
_LOG = "Logs/Plex Media Server.log"
_TAIL = 256 * 1024
"""Bytes at the end of the log to read."""
_ERROR = re.compile(rb"^.*\] (?:ERROR|FATAL) - (.*)$", re.MULTILINE)
_SHOWN = 200


def patience(server: str) -> float:
    """Return the seconds that a Plex may take to start on its folder ``server``."""
    total = 0
    for name in DATABASES:
        with suppress(OSError):
            total += os.stat(os.path.join(server, DATABASE_FOLDER, name)).st_size
    return BASE_SECONDS + total / BYTES_PER_SECOND


def last_error(server: str) -> str:
    """Return the last error in Plex's log, shortened; empty without one."""
    with suppress(OSError), os.fdopen(open_regular(os.path.join(server, _LOG)), "rb") as file:
        found = _ERROR.findall(_tail(file))
        return printable(found[-1])[:_SHOWN] if found else ""
    return ""


def _tail(file: BinaryIO) -> bytes:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
    return file.read(_TAIL)
