"""The rest of Plex on this machine after its service has ended."""

from __future__ import annotations

from agent.plex.processes import processes_of
from agent.plex.server import is_running as is_listening


def remains(unit: str) -> list[str]:
    """Return a line for each process of Plex, and one if its port is open.

    Args:
        unit: name of Plex's unit; empty if it has none.
    """
    found = [f"process {each}" for each in processes_of(unit)]
    return [*found, "a process listens on Plex's port"] if is_listening() else found
