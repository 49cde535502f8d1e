"""The runtime folder: the running service's notes for its own end. systemd creates it."""

from __future__ import annotations

import os
from contextlib import suppress

from shared.durable import write_durably

_VARIABLE = "RUNTIME_DIRECTORY"
"""Of systemd.exec(5). The folder is there until the last ExecStopPost has ended."""
_NAME = "state"


def leave_state_path(state: str) -> None:
    """Write down which state folder is in use; nothing where no systemd runs us.

    Raises:
        OSError: it cannot be written.
    """
    if folder := os.environ.get(_VARIABLE):
        write_durably(os.path.join(folder, _NAME), os.path.abspath(state).encode())


def state_path_left() -> str | None:
    """Return the state folder of the service that has just ended; None where it left none."""
    if folder := os.environ.get(_VARIABLE):
        with suppress(OSError), open(os.path.join(folder, _NAME), "rb") as file:
            return os.fsdecode(file.read()) or None
    return None
