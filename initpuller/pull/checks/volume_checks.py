"""Checks of the volume's room, its filesystem, and a library that is on it already."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import is_mount_point
from initpuller.volume.foreign_library import Wholeness, check_wholeness, is_skeleton
from shared.checks import CheckId, size, some

if TYPE_CHECKING:
    from shared.checks import Check
    from shared.plex.sqlite_check import DatabaseCheck
    from shared.wire.protocol import LibraryReport

_BYTES_PER_ENTRY = 4096
"""Bytes that an entry may take besides its content: a block of a folder, or a file's last block."""


@dataclass(frozen=True)
class VolumeFacts:
    """Room on the volume, and what is in the library's place."""

    free_bytes: int | None
    """None if the filesystem does not report it."""
    free_inodes: int | None
    """None if the filesystem creates inodes on demand."""
    existing: Wholeness | None = None
    """State of a library that is there already; None if there is none."""
    is_mounted: bool = False
    """Something is mounted at the library's own name, so the library cannot be renamed."""


def read_volume(target: str, name: str, depth: DatabaseCheck) -> VolumeFacts:
    """Return facts about the volume at ``target``, and about a library of this name on it.

    ``depth`` says how much of that library's databases is checked.

    Raises:
        OSError: the volume cannot be read.
    """
    about, library = os.statvfs(target), os.path.join(target, name)
    is_in_the_way = os.path.lexists(library) and not is_skeleton(library)
    return VolumeFacts(
        free_bytes=about.f_bavail * about.f_frsize if about.f_blocks else None,
        free_inodes=about.f_favail if about.f_files else None,
        existing=check_wholeness(library, depth) if is_in_the_way else None,
        is_mounted=is_mount_point(library),
    )


def check_space(report: LibraryReport, free: int | None) -> Check:
    """Return whether the library fits into ``free`` bytes; None if they are not known."""
    needed = report.content_bytes + report.entries * _BYTES_PER_ENTRY
    if free is None:
        found = f"the volume does not report its size; {size(needed)} at most needed"
        return CheckId.SPACE.warning(found, "Make sure that the volume has room for that.")
    found = f"{size(free)} free, {size(needed)} at most needed"
    if needed > free:
        advice = "Enlarge the volume, or leave something out: --exclude-regenerable."
        return CheckId.SPACE.failure(found, advice)
    return CheckId.SPACE.passed(found)


def check_inodes(needed: int, free: int | None) -> Check:
    """Return whether the volume has enough inodes; None means that it has no limit."""
    if free is None:
        return CheckId.INODES.passed("made as they are needed")
    found = f"{free} free, {needed} needed"
    if needed > free:
        advice = "Make the volume with more of them (mkfs -N), or larger."
        return CheckId.INODES.failure(found, advice)
    return CheckId.INODES.passed(found)


def check_filesystem(network: str | None) -> Check:
    """Return whether the volume's locks work as SQLite needs them.

    ``network`` is the type of a network filesystem, None for any other. Source:
    https://sqlite.org/faq.html, question 5.
    """
    if network is None:
        return CheckId.FILESYSTEM.passed("a local one, or a block device's")
    advice = "Use a block volume (iSCSI, Ceph RBD, Longhorn, local) for /config."
    found = f"{network}: SQLite's databases do not survive on a network filesystem"
    return CheckId.FILESYSTEM.warning(found, advice)


def check_existing(name: str, volume: VolumeFacts) -> Check:
    """Return whether the library's name on the volume is free."""
    existing = volume.existing
    if existing is None:
        return CheckId.TARGET.passed(f"there is no {name} yet")
    if volume.is_mounted:
        return CheckId.TARGET.failure(
            f"{name} is a mount point",
            "Mount the volume at its parent folder, without a mount (subPath) of its own for the"
            " library. --on-existing set-aside cannot rename a mount point.",
        )
    if existing.missing:
        found = f"a part of a {name} is there: {some(existing.missing)}"
        return CheckId.TARGET.failure(found, "Remove it, or give --on-existing set-aside.")
    found = f"a {name} is there already"
    if existing.unchecked:
        found += f"; databases not checked: {some(existing.unchecked)}"
    advice = "A pull leaves it as it is; --on-existing set-aside puts the source's in its place."
    return CheckId.TARGET.warning(found, advice)
