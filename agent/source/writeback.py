"""Write-back of a library's filesystems, after which files' times show every change.

A store through a memory map sets a file's times when it makes a page writable (``page_mkwrite`` in
Linux: ``file_update_time``), but not again while that page is dirty. POSIX allows the update to be
as late as the next ``msync``. Writing a page back makes it read-only again, so after a sync the
next store renews the times. That is true for the filesystems in :data:`_TELLING`. In memory (tmpfs)
nothing is ever written back. With NFS, SMB and FUSE, times come from another machine or program.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress

import structlog

from shared.durable import syncfs
from shared.errors import StorageError
from shared.mounts import read_mounts

_log = structlog.get_logger("agent")

_TELLING = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"})
"""Types of filesystems that set a file's times in their ``page_mkwrite``, as Linux names them."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
"""Errors of syncfs(2) if it is unavailable, for example because a filter blocks it."""
_TIMES = 2
"""Number of syncs. A page fault sets the times before its page is dirty, and the first sync may
come in between. The second sync writes that page back, too."""


def mounts_below(path: str) -> list[str]:
    """Return the mount points below the folder ``path``, which is absolute, without symlinks."""
    above = path.rstrip("/") + "/"
    return sorted({mount.point for mount in read_mounts() if mount.point.startswith(above)})


def write_back(path: str) -> frozenset[int]:
    """Write back the library's filesystem and all below it; ``path`` has no symlinks.

    Return the numbers of the devices on which times show every change since this call began.

    Raises:
        StorageError: If an earlier write to a disk has failed.
    """
    devices = set()
    for place in (path, *mounts_below(path)):
        with suppress(OSError):  # the scan reports folders that cannot be read
            fd = os.open(place, _FOLDER)
            try:
                device = os.fstat(fd).st_dev
                if device not in devices and _type_of(fd) in _TELLING and _is_synced(fd, place):
                    devices.add(device)
            finally:
                os.close(fd)
    return frozenset(devices)


def _is_synced(fd: int, place: str) -> bool:
    try:
        for _ in range(_TIMES):
            syncfs(fd)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno in _REFUSED:
            _log.warning("syncfs refused, reading all files again", path=place, reason=reason)
            return False
        raise StorageError(
            f"a write to the disk of the library has failed ({reason})",
            path=place,
            hint="Check the VM's disk and kernel log, then run again.",
        ) from error
    return True


def _type_of(fd: int) -> str:
    """Return the type of the filesystem that ``fd`` was opened on; empty if it is unknown."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        found = re.search(r"^mnt_id:\s*(\d+)$", file.read(), re.MULTILINE)
    number = int(found[1]) if found is not None else -1
    return next((mount.type for mount in read_mounts() if mount.number == number), "")
