"""Notifications to systemd (sd_notify(3)), and the path of the state that the service leaves."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.durable import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY = 1.0
"""Interval for checks of the status, in seconds."""
_RUNTIME = "RUNTIME_DIRECTORY"
"""Set by systemd, see systemd.exec(5). The folder exists until the last ExecStopPost has ended."""
_STATE = "state"
_SERVICE = "plexodus-agent.service"
_SECONDS = 8.0


class Notifier:
    """Sender of the messages; does nothing unless systemd started us with ``Type=notify``."""

    def __init__(self) -> None:
        self._where = os.environ.get("NOTIFY_SOCKET", "")
        watchdog = os.environ.get("WATCHDOG_USEC", "")
        is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog = int(watchdog) / 1e6 if watchdog.isdigit() and is_ours else None

    def ready(self) -> None:
        """Report that the listener is up and the library is readable."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Report that the settings are being reloaded; :meth:`ready` ends this state."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """Report that the agent is stopping."""
        self._tell("STOPPING=1\nSTATUS=Stopping")

    async def keep_told(self, status: Callable[[], str]) -> None:
        """Report changes of the line that ``status`` returns, and feed the watchdog. For ever."""
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
                return  # systemd may be restarting; the next report follows soon


def service_status() -> str:
    """Return the line that the running service last told systemd; empty without one."""
    command = ["systemctl", "show", "--property=StatusText", "--value", "--", _SERVICE]
    with suppress(OSError, subprocess.SubprocessError, UnicodeError):
        done = subprocess.run(  # noqa: S603 - constants
            command, check=True, capture_output=True, timeout=_SECONDS, encoding="utf-8"
        )
        return done.stdout.strip()
    return ""


def is_shutting_down() -> bool:
    """Return whether systemd is stopping everything, and so starts no service any more."""
    command = ["systemctl", "is-system-running"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 - constants
            command, check=False, capture_output=True, timeout=_SECONDS, text=True
        )
        return done.stdout.strip() == "stopping"
    return False


def leave_state_path(state: str) -> None:
    """Record the path of the state folder. Do nothing if the agent is not run by systemd."""
    if folder := os.environ.get(_RUNTIME):
        write_durably(os.path.join(folder, _STATE), os.path.abspath(state).encode())


def state_path_left() -> str | None:
    """Return the state folder of the service that has just ended; None if it recorded none."""
    if folder := os.environ.get(_RUNTIME):
        with suppress(OSError), open(os.path.join(folder, _STATE), "rb") as file:
            return os.fsdecode(file.read()) or None
    return None
