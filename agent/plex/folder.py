"""The search for Plex's folder on the VM.

Plex reads ``PLEX_MEDIA_SERVER_APPLICATION_SUPPORT_DIR``. The unit of its packages sets it.
Administrators override it in a drop-in or, with the packages' older scripts, in
``/etc/default/plexmediaserver``.
"""

from __future__ import annotations

import glob
import os
import pwd
import shlex
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.errors import PreflightRefused
from shared.plex.library import DATABASE_FOLDER, server_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.plex.engine import Engine, Mount

_VARIABLE = "PLEX_MEDIA_SERVER_APPLICATION_SUPPORT_DIR"
_DEFAULTS = "/etc/default/plexmediaserver"
_HOME = "/var/lib/plexmediaserver"
_SUPPORT = "Library/Application Support"
_SERVER = "Plex Media Server"
_SECONDS = 10.0
_ELSEWHERE = (
    f"/var/snap/plexmediaserver/common/{_SUPPORT}",
    "/var/lib/plex",
    "/volume*/PlexMediaServer/AppData",
    f"/volume*/Plex/{_SUPPORT}",
    "/share/*/.qpkg/PlexMediaServer/Library",
    "/usr/local/plexdata",
)
"""Support folders of the snap, Arch Linux, Synology (DSM 7 and 6), QNAP and FreeBSD. Their units do
not tell them (support.plex.tv, "Where is the Plex Media Server data directory located?")."""


def find_library_of_unit(unit: str) -> str:
    """Return the path of the folder to move, for a Plex that is a systemd unit.

    That is the ``Library`` folder around Plex's own folder, because the pod needs this layout. If
    the administrator chose a folder outside any ``Library/Application Support``, it is Plex's own
    folder. If Plex is not where the unit says, it may be where another package of it keeps it.

    Raises:
        PreflightRefused: If Plex's folder is not in the expected place.
    """
    shown = _ask_systemd(unit)
    support = support_folder(shown, read_assignments([_DEFAULTS]), _home("plex"))
    if not has_server(support) and len(others := elsewhere()) == 1:
        [support] = others
    return _library_of(support)


def find_library_in_container(engine: Engine, name: str) -> str:
    """Return the path on this machine of the folder to move, for a Plex in a container.

    Plex's own image and that of linuxserver.io keep it below ``/config``.

    Raises:
        PreflightRefused: If Plex's folder is not in the expected place.
        CutoverRefused: If the engine does not describe the container.
    """
    found = engine.inspect(name)
    inside = found.environment.get(_VARIABLE) or f"/config/{_SUPPORT}"
    return _library_of(path_outside(inside.rstrip("/"), found.mounts))


def path_outside(inside: str, mounts: Iterable[Mount]) -> str:
    """Return the path on the host of a path in a container; the same one if no mount has it."""
    around = [each for each in mounts if f"{inside}/".startswith(f"{each.destination}/")]
    nearest = max(around, key=lambda each: len(each.destination), default=None)
    if nearest is None:
        return inside
    return nearest.source.rstrip("/") + inside.removeprefix(nearest.destination)


def _library_of(support: str) -> str:
    if not has_server(support):
        raise PreflightRefused(
            "Plex's folder is missing, or this user has no access to it",
            path=os.path.join(support, _SERVER),
            hint="Mount its disk. If it is elsewhere, set its path with 'library' in the settings,"
            " or with --library. Set 'unit', or 'container', too, so that the agent can stop this"
            " Plex.",
        )
    return library_of(support)


def elsewhere(top: str = "/") -> list[str]:
    """Return the support folders of other packages of Plex that exist below ``top``."""
    patterns = (os.path.join(glob.escape(top), each.lstrip("/")) for each in _ELSEWHERE)
    found = (path for pattern in patterns for path in sorted(glob.glob(pattern)))
    return [path for path in found if has_server(path)]


def has_server(support: str) -> bool:
    """Return whether Plex's own folder is in a support folder."""
    return os.path.isdir(os.path.join(support, _SERVER))


def support_folder(shown: str, defaults: dict[str, str], home: str) -> str:
    """Return the path of Plex's application support folder.

    Args:
        shown: output of ``systemctl show`` for ``Environment`` and ``EnvironmentFiles``.
        defaults: variables that ``/etc/default/plexmediaserver`` assigns.
        home: home folder of the user that Plex runs as.
    """
    files: list[str] = []
    environment: dict[str, str] = {}
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        if name == "Environment":
            environment |= _assignments(shlex.split(value))
        elif name == "EnvironmentFiles":
            files.append(value.rpartition(" (")[0])
    environment |= read_assignments(files)
    found = environment.get(_VARIABLE) or defaults.get(_VARIABLE)
    return (found or os.path.join(home, _SUPPORT)).rstrip("/")


def library_of(support: str) -> str:
    """Return the folder to move for a support folder; see :func:`find_library_of_unit`."""
    if support.endswith(f"/{_SUPPORT}"):
        return os.path.dirname(support)
    return os.path.join(support, _SERVER)


def read_assignments(paths: Iterable[str]) -> dict[str, str]:
    """Return the variables that the readable files assign, in the syntax of systemd and shells."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                words = [shlex.split(line, comments=True) for line in file]
        except (OSError, ValueError):  # missing, or invalid for systemd and for shells
            continue
        found |= _assignments(word for line in words for word in line)
    return found


def _assignments(words: Iterable[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _ask_systemd(unit: str) -> str:
    """Return the unit's variables; empty if systemd does not respond, so that defaults apply."""
    command = ["systemctl", "show", "--property=Environment,EnvironmentFiles", "--", unit]
    try:
        answer = subprocess.run(  # noqa: S603 - no shell, and no option can be smuggled in
            command, check=True, capture_output=True, timeout=_SECONDS, encoding="utf-8"
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return ""
    return answer.stdout


def _home(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        return _HOME


def database_folder(library: str) -> str:
    """Return the path of the folder of Plex's databases; empty if the library is not Plex's."""
    server = server_folder(library)
    return "" if server is None else os.path.join(server, DATABASE_FOLDER)


def databases_in(folder: str) -> list[str]:
    """Return the paths of the databases in ``folder``, without symlinks.

    SQLite puts the files of a database that is a symlink beside the file that it leads to.

    Raises:
        OSError: If the folder cannot be listed.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(".db"))
    return [os.path.realpath(os.path.join(folder, name)) for name in names]


def logs_of_databases(library: str) -> list[str]:
    """Return the names of the ``-wal`` files beside the library's databases that are not empty.

    Plex removes them on an orderly stop (sqlite.org/wal.html, "Avoiding Excessively Large WAL
    Files" and "The WAL File").
    """
    with suppress(OSError), os.scandir(database_folder(library)) as found:
        return sorted(
            each.name for each in found if each.name.endswith(".db-wal") and each.stat().st_size
        )
    return []
