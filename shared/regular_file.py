"""Safe opening of files that another program may have replaced with something else.

Opening a FIFO for reading waits for a writer, and opening a device may have side effects. So a path
is first opened as a reference (``O_PATH``, open(2)) and checked. Only that same file is then opened
for reading, so it cannot be exchanged in between.
"""

from __future__ import annotations

import errno
import os
import stat

_REFERENCE = os.O_PATH | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC


def open_regular(
    path: str | bytes, *, dir_fd: int | None = None, follow_symlinks: bool = False
) -> int:
    """Open the regular file at ``path``, relative to ``dir_fd``, and return its descriptor.

    Raises:
        OSError: It cannot be opened, or is no regular file, nor a symlink to one if these may be
            followed.
    """
    flags = _REFERENCE if follow_symlinks else _REFERENCE | os.O_NOFOLLOW
    reference = os.open(path, flags, dir_fd=dir_fd)
    try:
        _check(path, os.fstat(reference))
        return os.open(f"/proc/self/fd/{reference}", _READ)
    finally:
        os.close(reference)


def require_regular(path: str) -> None:
    """Raise OSError unless ``path`` is missing, a regular file, or a symlink to one."""
    try:
        _check(path, os.stat(path))
    except FileNotFoundError:
        return


def _check(path: str | bytes, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        name = os.path.basename(os.fsdecode(path))
        raise OSError(errno.EINVAL, f"{name} is not a regular file", path)
