"""The filesystem of a volume: its mount, and what is on it: opened, read, written, removed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from contextlib import contextmanager
from itertools import chain, count
from typing import TYPE_CHECKING

from shared.frames.file_digests import hash_descriptor
from shared.mounts import MOUNTS, read_mounts
from shared.presence import is_there
from shared.timestamps import compact_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO)
"""Errors of opening or reading a name that is no file, or not there."""
WHILE_ASSEMBLED = 0o600
"""The mode of a file that is not finished."""
SECTOR = 512
"""Bytes of a block that stat(2) counts."""


def filesystem_type(path: str, table: str = MOUNTS) -> str | None:
    """Return the type of the filesystem that ``path`` is on; None if the table does not have it.

    Some programs of FUSE filesystems give no type of their own, but name what is mounted after
    themselves. These are ``fuse.NAME``, like all others.
    """
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for mount in read_mounts(table):
        if mount.device == number:
            is_named = mount.type == "fuse" and re.fullmatch(r"[\w.-]+", mount.source)
            return f"fuse.{mount.source}" if is_named else mount.type
    return None


def mount_of(path: str, table: str = MOUNTS) -> str:
    """Return the mount point of the filesystem of ``path`` and its type, for people."""
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


def set_aside_path(path: str) -> str:
    """Return a free name beside ``path`` with the time, such as PATH.set-aside-20260131T235959Z."""
    first = f"{path}.set-aside-{compact_timestamp()}"
    names = chain([first], (f"{first}-{number}" for number in count(2)))
    return next(name for name in names if not is_there(name))


@contextmanager
def opened(path: str | bytes, flags: int = FOLDER, *, dir_fd: int | None = None) -> Iterator[int]:
    """Open ``path``, by default a folder, and close it at the end of the block."""
    fd = os.open(path, flags, WHILE_ASSEMBLED, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def reopened(folder: int, name: bytes, flags: int) -> Iterator[int]:
    """Open a file of staging, even if an earlier run gave it its final, read-only mode."""
    try:
        fd = os.open(name, flags, WHILE_ASSEMBLED, dir_fd=folder)
    except PermissionError:
        os.chmod(name, WHILE_ASSEMBLED, dir_fd=folder)
        fd = os.open(name, flags, WHILE_ASSEMBLED, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def remove(folder: int, name: bytes) -> None:
    """Remove whatever ``name`` is in ``folder``; nothing there is fine."""
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(info.st_mode):
        shutil.rmtree(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)


def is_file(folder: int, name: bytes) -> bool:
    """Return whether ``name`` in ``folder`` is a file, and no symlink to one."""
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def hash_file(path: str) -> bytes:
    """Return the raw SHA-256 of the content of the file ``path``."""
    with open(path, "rb") as file:
        return hash_descriptor(file.fileno())
