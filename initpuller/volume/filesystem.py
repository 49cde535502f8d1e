"""Which filesystem a volume is: SQLite corrupts its databases where locks do not work."""

from __future__ import annotations

import os
import re

_MOUNTS = "/proc/self/mountinfo"
_NETWORK = re.compile(
    r"nfs4?|cifs|smb3|smbfs|9p|afs|ceph|fuse\.(sshfs|gluster.*|s3fs|rclone|ceph.*)"
)
"""Ceph's own locks work; its caches of a memory-mapped -shm do not (https://sqlite.org/wal.html)."""


def network_filesystem(path: str, mounts: str = _MOUNTS) -> str | None:
    """The type of the filesystem that ``path`` is on, if it is one over the network.

    Args:
        path: anything on it.
        mounts: the file that lists what is mounted (proc_pid_mountinfo(5)).
    """
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind = after.split(" ", 1)[0]
            if before.split(" ")[2] == number and _NETWORK.fullmatch(kind):
                return kind
    return None


def mount_of(path: str, mounts: str = _MOUNTS) -> str:
    """Return where the filesystem of ``path`` is mounted and its type, for people.

    Args:
        path: anything on it.
        mounts: the file that lists what is mounted (proc_pid_mountinfo(5)).
    """
    place = os.path.realpath(path)
    while not os.path.ismount(place):
        place = os.path.dirname(place)
    kind = "unknown type"
    with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if _unescaped(before.split(" ")[4]) == place:
                kind = after.split(" ", 1)[0]  # the last one listed is on top
    return f"{place} ({kind})"


def is_mount_point(path: str, mounts: str = _MOUNTS) -> bool:
    """Return whether something is mounted at ``path``, a bind mount of the same disk included.

    Args:
        path: what cannot be renamed then (rename(2), EBUSY).
        mounts: the file that lists what is mounted (proc_pid_mountinfo(5)).
    """
    place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        return any(_unescaped(line.split(" ")[4]) == place for line in file)


def _unescaped(name: str) -> str:
    """Return a path as it was before mountinfo escaped spaces and the like in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)
