"""Ports that no other test, run or connection takes meanwhile."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_FIRST, _LAST = 20_000, 32_000
"""Below the range that Linux gives to outgoing connections (``ip_local_port_range``)."""
_held: list[int] = []
"""Descriptors of the locks; they end with this process."""


def reserve_port() -> int:
    """Return a port of 127.0.0.1 that is this process's until it ends.

    A program under test must know its port before it listens, and listens there again after each
    restart. A lock in a shared folder keeps the port from every other run meanwhile.
    """
    folder = Path(tempfile.gettempdir()) / "plexodus-tests-ports"
    folder.mkdir(exist_ok=True)
    for port in random.sample(range(_FIRST, _LAST), _LAST - _FIRST):
        lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
            continue
        _held.append(lock)
        return port
    raise OSError(f"no free port from {_FIRST} to {_LAST}")
