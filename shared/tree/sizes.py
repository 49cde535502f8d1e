"""Sizes: of what a walk leaves out, and of a sparse file's data."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def content_size(base: int, name: bytes) -> int:
    """Return the bytes of content in ``name`` and all below it, as far as they can be read."""
    try:
        info = os.stat(name, dir_fd=base, follow_symlinks=False)
    except OSError:
        return 0
    if not stat.S_ISDIR(info.st_mode):
        return info.st_size
    size, folders = 0, [name]
    while folders:
        path = folders.pop()
        try:
            folder = os.open(path, _FOLDER, dir_fd=base)
        except OSError:
            continue
        try:
            # A list of a million names would be in memory.
            with suppress(OSError), os.scandir(folder) as found:
                for each in found:
                    if each.is_dir(follow_symlinks=False):
                        folders.append(path + b"/" + os.fsencode(each.name))
                    else:
                        with suppress(OSError):
                            size += each.stat(follow_symlinks=False).st_size
        finally:
            os.close(folder)
    return size


def data_bytes(file: int, size: int) -> int | None:
    """Return the bytes outside holes; None if there is no hole (a compressing filesystem).

    None as well if the filesystem cannot say where they are.

    Raises:
        OSError: If it fails to say.
    """
    total = position = 0
    while position < size:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return None
            if error.errno != errno.ENXIO:
                raise
            break  # nothing but a hole follows: lseek(2)
        position = os.lseek(file, start, os.SEEK_HOLE)
        total += min(position, size) - start
    return total if total < size else None
