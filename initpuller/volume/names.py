"""One name in a folder of staging: made a link, or removed."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.errors import IllegalLink

if TYPE_CHECKING:
    from initpuller.volume.ownership import Ownership
    from shared.tree.dir_stack import DirStack
    from shared.tree.manifest import Entry


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


def make_symlink(folder: int, name: bytes, entry: Entry, ownership: Ownership) -> os.stat_result:
    """Make ``name`` the symlink ``entry``, unless it is, and return its attributes."""
    try:
        os.symlink(entry.link, name, dir_fd=folder)
    except FileExistsError:
        if not _is_symlink_to(entry.link, folder, name):
            remove(folder, name)
            os.symlink(entry.link, name, dir_fd=folder)
    uid, gid = ownership.of(entry)
    info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if (info.st_uid, info.st_gid) != (uid, gid):
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
    times = (entry.mtime_ns, entry.mtime_ns)
    os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _is_symlink_to(target: bytes, folder: int, name: bytes) -> bool:
    try:
        return os.readlink(name, dir_fd=folder) == target
    except OSError:
        return False


def make_hardlink(folders: DirStack, others: DirStack, entry: Entry) -> None:
    """Make ``entry`` in ``folders`` another name of its link in ``others``, unless it is.

    Raises:
        IllegalLink: the other name is not there, or is a folder.
    """
    try:
        source, source_name = others.parent(entry.link)
        wanted = os.stat(source_name, dir_fd=source, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        raise IllegalLink("a hard link to an entry that does not exist", path=entry.path) from None
    if stat.S_ISDIR(wanted.st_mode):
        raise IllegalLink("a hard link to a folder", path=entry.path)
    folder, name = folders.parent(entry.path)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), wanted):
            return
        remove(folder, name)
    os.link(source_name, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
