"""Durable writes: after a crash, a file is complete or absent.

Only this module gives files their final names.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from contextlib import suppress

from shared.presence import is_there

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


def write_durably(path: str, content: bytes, mode: int = 0o600) -> None:
    """Write ``content`` beside ``path``, fsync it, rename it over ``path``, fsync the folder.

    If a step fails with OSError, ``path`` is as before, or it has the new content, which a power
    loss may undo: do not rely on what is read there then, but write it again.
    """
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        replace_durably(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def replace_durably(temporary: str, path: str) -> None:
    """Make the finished file ``temporary`` durable and rename it to ``path``, or raise OSError."""
    _fsync(temporary, os.O_NOFOLLOW)
    os.rename(temporary, path)
    fsync_folder(os.path.dirname(path))


def discard_folder(path: str, aside: str) -> None:
    """Remove the folder ``path``, if it is there, so that no part of it is left under its name.

    Rename it to ``aside``, durably, and remove that as far as possible. Nothing may read what is
    left there. If the folder cannot be renamed, raise OSError.
    """
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    for folder in {os.path.dirname(path), os.path.dirname(aside)}:
        fsync_folder(folder)
    shutil.rmtree(aside, ignore_errors=True)


def fsync_folder(path: str) -> None:
    """Make the names in the folder ``path`` durable."""
    _fsync(path, os.O_DIRECTORY)


def _fsync(path: str, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def syncfs(fd: int) -> None:
    """Make everything that was written to the filesystem of ``fd`` durable (syncfs(2)).

    Raise OSError if an earlier, accepted write has failed since.
    """
    if _libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def rename_noreplace(source: str, target: str) -> None:
    """Rename ``source`` to ``target`` atomically, without replacing anything (renameat2(2)).

    Raise FileExistsError if ``target`` exists. On filesystems that do not support the flag (NFS),
    check that first.
    """
    done = _libc.renameat2(
        _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
    )
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), source, None, target)
    if is_there(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    os.rename(source, target)
