"""The path of the state folder, which the service records for its own ExecStopPost."""

from __future__ import annotations

import os
from contextlib import suppress

from shared.durable import write_durably

_VARIABLE = "RUNTIME_DIRECTORY"
"""Set by systemd, see systemd.exec(5). The folder exists until the last ExecStopPost has ended."""
_NAME = "state"


def leave_state_path(state: str) -> None:
    """Record the path of the state folder. Do nothing if the agent is not run by systemd.

    Raises:
        OSError: If the path cannot be written.
    """
    if folder := os.environ.get(_VARIABLE):
        write_durably(os.path.join(folder, _NAME), os.path.abspath(state).encode())


def state_path_left() -> str | None:
    """Return the state folder of the service that has just ended; None if it recorded none."""
    if folder := os.environ.get(_VARIABLE):
        with suppress(OSError), open(os.path.join(folder, _NAME), "rb") as file:
            return os.fsdecode(file.read()) or None
    return None
