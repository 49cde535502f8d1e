"""The search for Plex's folder on the VM.

Plex reads ``PLEX_MEDIA_SERVER_APPLICATION_SUPPORT_DIR``. The unit of its packages sets it.
Administrators override it in a drop-in or, with the packages' older scripts, in
``/etc/default/plexmediaserver``.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.errors import ConfigurationError
from shared.plex.library import DATABASE_FOLDER, server_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

_VARIABLE = "PLEX_MEDIA_SERVER_APPLICATION_SUPPORT_DIR"
_DEFAULTS = "/etc/default/plexmediaserver"
_HOME = "/var/lib/plexmediaserver"
_SUPPORT = "Library/Application Support"
_SERVER = "Plex Media Server"
_SECONDS = 10.0


def find_library(unit: str) -> str:
    """Return the path of the folder to move.

    That is the ``Library`` folder around Plex's own folder, because the pod needs this layout. If
    the administrator chose a folder outside any ``Library/Application Support``, it is Plex's own
    folder.

    Raises:
        ConfigurationError: If Plex's folder is not in the expected place.
    """
    support = support_folder(_ask_systemd(unit), read_assignments([_DEFAULTS]), _home("plex"))
    if not os.path.isdir(os.path.join(support, _SERVER)):
        raise ConfigurationError(
            "Plex's folder is missing, or this user has no access to it",
            path=os.path.join(support, _SERVER),
            hint="Set its path with 'library' in the settings, or with --library.",
        )
    return library_of(support)


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
    """Return the folder to move for the support folder ``support``; see :func:`find_library`."""
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


def logs_of_databases(library: str) -> list[str]:
    """Return the names of the ``-wal`` files beside the library's databases that are not empty.

    Plex removes them on an orderly stop (sqlite.org/wal.html, "Avoiding Excessively Large WAL
    Files" and "The WAL File").
    """
    server = server_folder(library)
    if server is None:
        return []
    with suppress(OSError), os.scandir(os.path.join(server, DATABASE_FOLDER)) as found:
        return sorted(
            each.name for each in found if each.name.endswith(".db-wal") and each.stat().st_size
        )
    return []
