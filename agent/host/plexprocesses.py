"""Which processes are Plex': those of its unit, and whatever was started from its folder."""

from __future__ import annotations

import os
from contextlib import suppress

from shared.errors import printable

_FOLDER = b"/usr/lib/plexmediaserver/"
_SHOWN = 80


def processes_of(unit: str, proc: str = "/proc") -> list[str]:
    """Number and command line of each.

    A scanner or transcoder has its own name, but is in the unit's control group (cgroups(7)), and
    started from the same folder. A pid file proves nothing, in either direction.

    Args:
        unit: of systemd; empty: there is none.
        proc: where the kernel shows them.
    """
    found = []
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        with suppress(OSError):  # it has just ended
            command = _read(os.path.join(proc, name, "cmdline"))
            groups = _read(os.path.join(proc, name, "cgroup")) if unit else b""
            arguments = command.split(b"\0")[:2]  # the second: of an interpreter
            is_plex = any(each.startswith(_FOLDER) for each in arguments)
            if (is_plex or _is_in(groups, unit)) and not _is_dead(proc, name):
                found.append(f"{name} ({printable(b' '.join(arguments))[:_SHOWN].strip()})")
    return found


def _is_in(groups: bytes, unit: str) -> bool:
    wanted = unit.encode()
    return bool(unit) and any(wanted in line.split(b"/") for line in groups.splitlines())


def _is_dead(proc: str, name: str) -> bool:
    """Whether nothing but its exit code is left."""
    state = _read(os.path.join(proc, name, "stat")).rpartition(b") ")[2][:1]
    return state in (b"Z", b"X")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
