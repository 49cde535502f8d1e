"""The extended attributes that are content: those of the ``user.`` namespace (xattr(7))."""

from __future__ import annotations

import errno
import os


def read_xattrs(fd: int) -> dict[str, bytes]:
    """Return the ``user.`` xattrs of a file or folder; none if the filesystem has no xattrs."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    return {name: os.getxattr(fd, name) for name in names if name.startswith("user.")}
