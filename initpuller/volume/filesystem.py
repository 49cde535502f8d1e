"""The filesystem of a volume: SQLite corrupts its databases where locks do not work."""

from __future__ import annotations

import os
import re

from shared.mounts import MOUNTS, read_mounts

_NETWORK = re.compile(
    r"nfs4?|cifs|smb3|smbfs|9p|afs|ceph|fuse\.(sshfs|gluster.*|s3fs|rclone|ceph.*)"
)
"""Ceph's own locks work; its caches of a memory-mapped -shm do not (https://sqlite.org/wal.html)."""


def network_filesystem(path: str, table: str = MOUNTS) -> str | None:
    """Return the type of the filesystem that ``path`` is on, if it is a network filesystem.

    Args:
        path: any file or folder on it.
        table: path of the mount table.
    """
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for mount in read_mounts(table):
        if mount.device == number and _NETWORK.fullmatch(mount.type):
            return mount.type
    return None


def mount_of(path: str, table: str = MOUNTS) -> str:
    """Return the mount point of the filesystem of ``path`` and its type, for people.

    Args:
        path: any file or folder on it.
        table: path of the mount table.
    """
    place = os.path.realpath(path)
    while not os.path.ismount(place):
        place = os.path.dirname(place)
    # The last mount at a place covers the others.
    types = [mount.type for mount in read_mounts(table) if mount.point == place]
    return f"{place} ({types[-1] if types else 'unknown type'})"


def is_mount_point(path: str) -> bool:
    """Return whether ``path`` is a mount point, also of a bind mount of the same disk.

    A mount point cannot be renamed (rename(2), EBUSY).
    """
    place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return any(mount.point == place for mount in read_mounts())
