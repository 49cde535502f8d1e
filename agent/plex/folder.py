"""Where Plex keeps its library: as its systemd unit says, drop-ins included, or as it is usual.

Plex reads ``PLEX_MEDIA_SERVER_APPLICATION_SUPPORT_DIR``. The unit of its packages sets it, people
override it in a drop-in or, with the packages' older scripts, in ``/etc/default/plexmediaserver``.
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
    """The folder to be moved.

    That is the ``Library`` which Plex's folder is in, as the pod needs it. Where somebody chose a
    folder outside any ``Library/Application Support``, it is Plex's own folder.

    Raises:
        ConfigurationError: there is no folder of Plex where it should be.
    """
    support = support_folder(_ask_systemd(unit), read_assignments([_DEFAULTS]), _home("plex"))
    if not os.path.isdir(os.path.join(support, _SERVER)):
        raise ConfigurationError(
            "Plex's folder is not there, or this user may not look for it",
            path=os.path.join(support, _SERVER),
            hint="Say where it is: 'library' in the settings, or --library.",
        )
    return library_of(support)


def support_folder(shown: str, defaults: dict[str, str], home: str) -> str:
    """Return the folder that Plex is configured to use.

    Args:
        shown: what ``systemctl show`` printed of ``Environment`` and ``EnvironmentFiles``.
        defaults: what ``/etc/default/plexmediaserver`` assigns.
        home: of the user that Plex runs as.
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
    """Return the folder to move, given ``support``; see :func:`find_library`."""
    if support.endswith(f"/{_SUPPORT}"):
        return os.path.dirname(support)
    return os.path.join(support, _SERVER)


def read_assignments(paths: Iterable[str]) -> dict[str, str]:
    """``NAME=value`` in the files that can be read, as systemd and shells write it."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                words = [shlex.split(line, comments=True) for line in file]
        except (OSError, ValueError):  # not there, or not written as either would read it
            continue
        found |= _assignments(word for line in words for word in line)
    return found


def _assignments(words: Iterable[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _ask_systemd(unit: str) -> str:
    """Empty where systemd cannot be asked: then what is usual holds."""
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
    """Names of the ``-wal`` files beside Plex's databases that have something in them.

    Plex removes them when it ends by itself (sqlite.org/wal.html, "Avoiding Excessively Large WAL
    Files" and "The WAL File").

    Args:
        library: the folder that is moved.
    """
    server = server_folder(library)
    if server is None:
        return []
    with suppress(OSError), os.scandir(os.path.join(server, DATABASE_FOLDER)) as found:
        return sorted(
            each.name for each in found if each.name.endswith(".db-wal") and each.stat().st_size
        )
    return []
