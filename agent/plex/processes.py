"""The processes of Plex: those of its unit, and all that were started from its folder."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from shared.errors import printable

_FOLDER = b"/usr/lib/plexmediaserver/"
_SQLITE = _FOLDER + b"Plex SQLite"
_READ_ONLY = re.compile(rb"file:.*[?&](mode=ro|immutable=1)(&|$)|-readonly", re.DOTALL)
"""An argument that opens a database for reading only, as the agent's own checks do."""
_INTERPRETER = re.compile(rb"Plex|(python|perl|ruby|node|lua|(ba|da|z|k|)sh\n)")
"""Processes whose first argument is a program. For others, such as 'less', it is a file."""
_SHOWN = 80


def processes_of(unit: str, proc: str = "/proc") -> list[str]:
    """Return the pid and the command line of each process of Plex.

    Scanners and transcoders have names of their own, but are in the unit's control group
    (cgroups(7)) and were started from the same folder. A pid file proves nothing, whether it exists
    or not. A read-only check of a database, as by 'plexodus-agent preflight', is not Plex. ``unit``
    is empty if Plex has none.
    """
    found = []
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        with suppress(OSError):  # the process has just ended
            command = _read(os.path.join(proc, name, "cmdline"))
            groups = _read(os.path.join(proc, name, "cgroup")) if unit else b""
            arguments = command.split(b"\0")[:2]  # an interpreter's program is the second
            is_plex = not _only_reads(command) and (
                arguments[0].startswith(_FOLDER)
                or (arguments[-1].startswith(_FOLDER) and _is_interpreter(proc, name))
            )
            if (is_plex or _is_in(groups, unit)) and not _is_dead(proc, name):
                found.append(f"{name} ({printable(b' '.join(arguments))[:_SHOWN].strip()})")
    return found


def _only_reads(command: bytes) -> bool:
    """Return whether ``command`` is Plex's SQLite with a database open for reading only."""
    program, *arguments = command.split(b"\0")
    return program == _SQLITE and any(_READ_ONLY.match(each) for each in arguments)


def _is_interpreter(proc: str, name: str) -> bool:
    return _INTERPRETER.match(_read(os.path.join(proc, name, "comm"))) is not None


def _is_in(groups: bytes, unit: str) -> bool:
    wanted = unit.encode()
    return bool(unit) and any(wanted in line.split(b"/") for line in groups.splitlines())


def _is_dead(proc: str, name: str) -> bool:
    """Return whether the process has ended and only its exit code is left."""
    state = _read(os.path.join(proc, name, "stat")).rpartition(b") ")[2][:1]
    return state in (b"Z", b"X")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
