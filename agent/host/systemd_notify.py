"""Messages to systemd: ready, a status line, still alive, stopping (sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY = 1.0
"""Seconds between two looks at the status."""


class Notifier:
    """Tells systemd, where it runs us with ``Type=notify``; nobody else."""

    def __init__(self) -> None:
        self._where = os.environ.get("NOTIFY_SOCKET", "")
        watchdog = os.environ.get("WATCHDOG_USEC", "")
        is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog = int(watchdog) / 1e6 if watchdog.isdigit() and is_ours else None

    def ready(self) -> None:
        """The listener is up and the library readable."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """The settings are read again; :meth:`ready` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """Report that the agent is stopping."""
        self._tell("STOPPING=1\nSTATUS=Stopping")

    async def keep_told(self, status: Callable[[], str]) -> None:
        """Tell the status whenever it is another, and that the event loop turns; never returns."""
        told, alive = "", 0.0
        while True:
            now = time.monotonic()
            if (said := status()) != told:
                self._tell(f"STATUS={said}")
                told = said
            if self._watchdog is not None and now - alive >= self._watchdog / 3:
                self._tell("WATCHDOG=1")
                alive = now
            await asyncio.sleep(_EVERY)

    def _tell(self, what: str) -> None:
        if not self._where:
            return
        path = "\0" + self._where[1:] if self._where.startswith("@") else self._where
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
            try:
                end.connect(path)
                end.sendall(what.encode())
            except OSError:
                return  # systemd restarts itself now and then; the next line comes soon
