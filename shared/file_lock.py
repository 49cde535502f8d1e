"""Advisory locks on files (flock(2)): they end with the process that holds them."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMON = os.O_CLOEXEC | os.O_NOFOLLOW
_FLAGS = os.O_RDWR | os.O_CREAT | _COMMON
_NOT_WRITABLE = (errno.EROFS, errno.EACCES)


class LockRefused(OSError):
    """The filesystem cannot lock files."""


@contextmanager
def locked_file(
    path: str,
    mode: int = 0o600,
    *,
    waits: bool = True,
    appends: bool = False,
    writes: bool = True,
) -> Iterator[int]:
    """Open ``path`` and hold its lock until the block ends; yield the descriptor.

    A missing file is created with ``mode``. If ``appends``, each write goes to the file's end. If
    not ``writes``, an existing file that cannot be written, as on a read-only filesystem, is opened
    for reading: flock(2) needs no more.

    Raises:
        BlockingIOError: Another process or thread holds the lock, and ``waits`` is false.
        FileNotFoundError: The file is missing and cannot be created, and ``writes`` is false.
        LockRefused: The filesystem cannot lock files.
        OSError: The file cannot be opened.
    """
    try:
        fd = os.open(path, _FLAGS | (os.O_APPEND if appends else 0), mode)
    except OSError as error:
        if writes or error.errno not in _NOT_WRITABLE:
            raise
        fd = os.open(path, os.O_RDONLY | _COMMON)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError as error:
            raise LockRefused(error.errno, error.strerror, path) from error
        yield fd
    finally:
        os.close(fd)
