"""The only writer of final names: a file is there whole, after a crash too, or not at all."""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


def write_durably(path: str, content: bytes, mode: int = 0o600) -> None:
    """Write ``content`` beside ``path``, fsync it, rename it over ``path``, fsync the folder.

    Raises:
        OSError: as the filesystem says; ``path`` is then what it was.
    """
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        replace_durably(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def replace_durably(temporary: str, path: str) -> None:
    """Make the finished file ``temporary`` durable and give it its final name.

    Raises:
        OSError: as the filesystem says; ``path`` is then what it was.
    """
    fd = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    fsync_folder(os.path.dirname(path))


def fsync_folder(path: str) -> None:
    """Make the names in the folder ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def syncfs(fd: int) -> None:
    """Make everything written to the filesystem of ``fd`` durable (syncfs(2)).

    Raises:
        OSError: a write that was accepted earlier has failed since.
    """
    if _libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def rename_noreplace(source: str, target: str) -> None:
    """Rename ``source`` to ``target`` in one step, never over something (renameat2(2)).

    Filesystems that do not know the flag (NFS) get a look before the rename instead.

    Raises:
        FileExistsError: ``target`` is there.
        OSError: as the filesystem says.
    """
    done = _libc.renameat2(
        _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
    )
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), source, None, target)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    os.rename(source, target)
