"""Whether a Plex library that we did not put there is whole, as far as that can be told.

A killed ``curl | tar`` leaves a torso, and a Plex that starts on one becomes a new server: its
history is lost, and so is the chance to notice.
"""

from __future__ import annotations

import os

from initpuller.volume.filesystem import is_mount_point
from shared.plexlibrary import DATABASE_FOLDER, DATABASES, PREFERENCES, server_folder
from shared.sqlitecheck import check_database

_ON_THE_WAY = {"Application Support"}
"""What is in a ``Library`` of which Plex' own folder has not come yet."""


def what_is_missing(library: str) -> list[str]:
    """What a Plex could not start on, a line each; nothing if it could, or if it is not Plex'.

    Raises:
        OSError: it cannot be looked at.
    """
    server = server_folder(library)
    if server is None or not os.path.isdir(library):
        return []
    if not os.path.isdir(server):
        is_begun = set(os.listdir(library)) <= _ON_THE_WAY
        return [f"{os.path.relpath(server, library)} is not there"] if is_begun else []
    missing = []
    if _size(os.path.join(server, PREFERENCES)) == 0:
        missing.append(f"{PREFERENCES} is empty or not there")
    for name in DATABASES:
        path = os.path.join(server, DATABASE_FOLDER, name)
        missing += [f"{name}: {line}" for line in check_database(path).damage]
    return missing


def is_skeleton(library: str) -> bool:
    """Return whether nothing but folders has the library's name, so that no file is in the way.

    Kubernetes makes such folders for mounts below the library. Init containers and charts do, too.

    Raises:
        OSError: the folders cannot be listed.
    """
    if os.path.islink(library) or not os.path.isdir(library) or is_mount_point(library):
        return False
    pending = [library]
    while pending:
        with os.scandir(pending.pop()) as found:
            for each in found:
                if not each.is_dir(follow_symlinks=False):
                    return False
                pending.append(each.path)
    return True


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0
