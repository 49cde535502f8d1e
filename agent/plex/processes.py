"""The processes of Plex: those of its unit or container, and all that were started from its folder.

The unit's sandbox hides other users' processes from the agent (``ProtectProc=invisible``,
systemd.exec(5)). systemd itself sees them, and tells anyone about them.
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from agent.plex.service import BY_HAND
from shared import typed_json
from shared.errors import CutoverRefused, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = "/usr/lib/plexmediaserver/"
_SQLITE = f"{_FOLDER}Plex SQLite "
_READ_ONLY = re.compile(r" (file:.*[?&](mode=ro|immutable=1)(&| |$)|-readonly\b)", re.DOTALL)
"""An argument that opens a database for reading only, as the agent's own checks do."""
_PLEX = re.compile(
    rf"({_FOLDER}|Plex .*{_FOLDER}|(\S*/)?(python|perl|ruby|node|lua|(ba|da|z|k|)sh)[\d.]*( -\S+)*"
    rf" {_FOLDER})",
    re.DOTALL,
)
"""The beginning of a command line: a program of Plex, a name that Plex gave a process, or an
interpreter that runs a file of Plex. Other programs, such as 'less', only read it."""
_QUOTES = str.maketrans("", "", "\"'$")
"""systemd 248 and newer quote the arguments for a shell."""
_SHOWN = 80
_BOOTED = "/run/systemd/system"
_SECONDS = 8.0
_LIST = (
    *("busctl", "--json=short", "call", "--", "org.freedesktop.systemd1"),
    *("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"),
    *("GetUnitProcesses", "s", "-.slice"),
)
"""The processes of the slice that has all others in it (org.freedesktop.systemd1(5))."""


class _Process(NamedTuple):
    group: str
    """Path of its control group (cgroups(7))."""
    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.pid} ({printable(self.command)[:_SHOWN].strip()})"


class _Listed(msgspec.Struct):
    """The output of ``busctl`` for a method: here, one array."""

    data: tuple[list[_Process]]


def processes_of(unit: str, proc: str = "") -> list[str]:
    """Return the pid and the command line of each process of Plex.

    Scanners and transcoders have names of their own, but are in the unit's control group and were
    started from the same folder. A pid file proves nothing, whether it exists or not. A read-only
    check of a database, as by 'plexodus-agent preflight', is not Plex.

    Args:
        unit: name of Plex's unit; empty if it has none.
        proc: where to read processes, instead of asking systemd.

    Raises:
        CutoverRefused: If systemd does not tell.
    """
    return [str(each) for each in _of(unit, proc)]


def pids_of(unit: str) -> set[int]:
    """Return the pid of each process that :func:`processes_of` describes.

    Raises:
        CutoverRefused: If systemd does not tell.
    """
    return {each.pid for each in _of(unit)}


def processes_in(container: str) -> list[str]:
    """Return the pid and the command line of each process of a container.

    Args:
        container: its whole ID, which is a part of its control group's name.

    Raises:
        CutoverRefused: If systemd does not tell.
    """
    return [str(each) for each in _in(container)]


def pids_in(container: str) -> set[int]:
    """Return the pid of each process that :func:`processes_in` describes.

    Raises:
        CutoverRefused: If systemd does not tell.
    """
    return {each.pid for each in _in(container)}


def _of(unit: str, proc: str = "") -> list[_Process]:
    found = _running(proc)
    return [each for each in found if _is_plex(each.command) or _is_in(each.group, unit)]


def _in(container: str) -> list[_Process]:
    return [each for each in _running("") if container in each.group]


def _running(proc: str) -> list[_Process]:
    """Return all processes from systemd, or from proc(5) where systemd does not run (sd_booted(3)).

    Hidden processes would look like a Plex that has stopped, so there is no way around an error.
    """
    if proc or not os.path.isdir(_BOOTED):
        return list(_from_proc(proc or "/proc"))
    try:
        done = subprocess.run(  # noqa: S603 - constants
            _LIST, check=True, capture_output=True, timeout=_SECONDS
        )
        return typed_json.decode(done.stdout, _Listed).data[0]
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        raise CutoverRefused(
            f"systemd does not list the processes of this machine ({error})",
            hint=f"Find out why 'busctl call' fails. {BY_HAND}",
        ) from error


def _from_proc(proc: str) -> Iterator[_Process]:
    for name in filter(str.isdigit, os.listdir(proc)):
        with suppress(OSError):  # the process has just ended
            place = os.path.join(proc, name)
            command = _read(place, "cmdline").rstrip("\0").replace("\0", " ")
            if not _is_dead(_read(place, "stat")):
                yield _Process(_read(place, "cgroup"), int(name), command)


def _is_plex(command: str) -> bool:
    text = command.translate(_QUOTES)
    only_reads = text.startswith(_SQLITE) and _READ_ONLY.search(text) is not None
    return _PLEX.match(text) is not None and not only_reads


def _is_in(group: str, unit: str) -> bool:
    return bool(unit) and any(unit in line.split("/") for line in group.splitlines())


def _is_dead(stat: str) -> bool:
    """Return whether the process has ended and only its exit code is left."""
    return stat.rpartition(") ")[2][:1] in ("Z", "X")


def _read(place: str, name: str) -> str:
    with open(os.path.join(place, name), encoding="utf-8", errors="replace") as file:
        return file.read()
