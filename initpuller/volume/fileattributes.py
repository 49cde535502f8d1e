"""Content and attributes of one file or folder, through its descriptor."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from initpuller.volume.ownership import Ownership
    from shared.manifest import Entry

_HOLE = 4096
"""Bytes: the smallest run of zeros that is left out of a sparse file."""
_STRIDE = 16 * _HOLE
_ZEROS = bytes(_STRIDE)


def write_content(fd: int, content: memoryview, offset: int, *, sparse: bool) -> None:
    """Write ``content`` at ``offset``; of a sparse file, leave out the runs of zeros.

    Raises:
        OSError: as the filesystem says.
    """
    if not sparse:
        _write_all(fd, content, offset)
        return
    for start in range(0, len(content), _STRIDE):
        stride = content[start : start + _STRIDE]
        if stride == _ZEROS[: len(stride)]:
            continue
        for at in range(0, len(stride), _HOLE):
            piece = stride[at : at + _HOLE]
            if piece != _ZEROS[: len(piece)]:
                _write_all(fd, piece, offset + start + at)


def set_attributes(fd: int, entry: Entry, ownership: Ownership, mode: int | None = None) -> None:
    """Give owner, xattrs, mode and times: in this order, since each undoes a later one.

    Args:
        fd: the file or folder.
        entry: what it shall be.
        ownership: whose it shall be.
        mode: instead of the entry's own.

    Raises:
        OSError: as the filesystem says.
    """
    uid, gid = ownership.of(entry)
    info = os.fstat(fd)
    if (info.st_uid, info.st_gid) != (uid, gid):
        os.fchown(fd, uid, gid)
    for name, value in entry.xattrs.items():
        os.setxattr(fd, name, value)
    os.fchmod(fd, entry.mode if mode is None else mode)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))


def read_xattrs(fd: int) -> dict[str, bytes]:
    """The ``user.`` xattrs of a file or folder.

    Raises:
        OSError: as the filesystem says.
    """
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    return {name: os.getxattr(fd, name) for name in names if name.startswith("user.")}


def drop_other_xattrs(fd: int, entry: Entry) -> None:
    """Remove the ``user.`` xattrs that a folder of an earlier snapshot had and ``entry`` has not.

    Raises:
        OSError: as the filesystem says.
    """
    for name in read_xattrs(fd):
        if name not in entry.xattrs:
            os.removexattr(fd, name)


def _write_all(fd: int, content: memoryview, offset: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(fd, content[done:], offset + done)
