"""Opens files that somebody else may have replaced: regular ones, and nothing that blocks.

Opening a FIFO for reading waits for a writer, and opening a device may do anything. So a name is
opened as a mere reference first (``O_PATH``, open(2)), looked at, and only then opened for reading:
nothing can come in between.
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
    """Return a descriptor to read the regular file at ``path``.

    Args:
        path: its name.
        dir_fd: descriptor of the folder that ``path`` is relative to.
        follow_symlinks: whether the last name may be a symlink to one.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    flags = _REFERENCE if follow_symlinks else _REFERENCE | os.O_NOFOLLOW
    reference = os.open(path, flags, dir_fd=dir_fd)
    try:
        _check(path, os.fstat(reference))
        return os.open(f"/proc/self/fd/{reference}", _READ)
    finally:
        os.close(reference)


def require_regular(path: str) -> None:
    """Refuse what is at ``path`` if it is something else than a regular file, or a symlink to one.

    Raises:
        OSError: it is, or it cannot be looked at. A missing file is no error.
    """
    try:
        _check(path, os.stat(path))
    except FileNotFoundError:
        return


def _check(path: str | bytes, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        name = os.path.basename(os.fsdecode(path))
        raise OSError(errno.EINVAL, f"{name} is not a regular file", path)
