"""Check whether a Plex library that plexodus did not put there is complete, as far as possible.

A killed ``curl | tar`` leaves a torso, and a Plex that starts on one becomes a new server: its
history is lost, and so is the chance to notice.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from initpuller.volume.filesystem import is_mount_point
from shared.checks import size
from shared.plex.library import DATABASE_FOLDER, DATABASES, PREFERENCES, server_folder
from shared.plex.sqlite_check import DatabaseCheck, check_database
from shared.presence import is_folder, mode_at

_ON_THE_WAY = {"Application Support"}
"""Entries of a ``Library`` in which Plex's own folder is still missing."""


@dataclass(frozen=True)
class Wholeness:
    """Findings about a library. It is whole if nothing is missing and nothing is unchecked."""

    missing: list[str] = field(default_factory=list)
    """What a Plex could not start on, a line each."""
    unchecked: list[str] = field(default_factory=list)
    """Databases that were not checked, and why, a line each."""


def check_wholeness(library: str, depth: DatabaseCheck = DatabaseCheck.QUICK) -> Wholeness:
    """Return whether a Plex could start on ``library``. One that is not Plex's counts as whole.

    A pod makes this check at each start, as long as a library that is not ours is on its volume. A
    full check can take hours on a large database, and a torso shows in a quick one too: pages are
    missing or are not of the database. So a quick check is the default.
    """
    server = server_folder(library)
    if server is None or not is_folder(library):
        return Wholeness()
    if not is_folder(server):
        is_begun = set(os.listdir(library)) <= _ON_THE_WAY
        return Wholeness([f"{os.path.relpath(server, library)} is not there"] if is_begun else [])
    found = Wholeness()
    if _size(os.path.join(server, PREFERENCES)) == 0:
        found.missing.append(f"{PREFERENCES} is empty or not there")
    for name in DATABASES:
        path = os.path.join(server, DATABASE_FOLDER, name)
        soundness = check_database(path, depth)
        found.missing.extend(f"{name}: {line}" for line in soundness.damage)
        if soundness.not_checked:
            found.unchecked.append(f"{name} ({size(_size(path))}): {soundness.not_checked}")
    return found


def is_skeleton(library: str) -> bool:
    """Return whether nothing but folders has the library's name, so that no file is in the way.

    Kubernetes makes such folders for mounts below the library. Init containers and charts do, too.
    """
    is_own_folder = stat.S_ISDIR(mode_at(library, follow_symlinks=False))
    if not is_own_folder or is_mount_point(library):
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
