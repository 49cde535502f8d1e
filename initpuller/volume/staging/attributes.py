"""One entry in staging: its content, attributes and links, set and read back."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import remove
from shared.errors import IllegalLink, printable
from shared.positional_io import write_at
from shared.tree.manifest import Kind
from shared.tree.xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.ownership import Ownership
    from shared.tree.dir_stack import DirStack
    from shared.tree.manifest import Entry

_KINDS = {stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.SYMLINK}
_WITH_NAMES = (Kind.FILE, Kind.SYMLINK)

_HOLE = 4096
"""Bytes: the smallest run of zeros that is left out of a sparse file."""
_STRIDE = 16 * _HOLE
_ZEROS = bytes(_STRIDE)


def write_content(fd: int, content: memoryview, offset: int, *, sparse: bool) -> None:
    """Write ``content`` at ``offset``; leave out runs of zeros if the file is sparse."""
    if not sparse:
        write_at(fd, content, offset)
        return
    for start in range(0, len(content), _STRIDE):
        stride = content[start : start + _STRIDE]
        if stride == _ZEROS[: len(stride)]:
            continue
        for at in range(0, len(stride), _HOLE):
            piece = stride[at : at + _HOLE]
            if piece != _ZEROS[: len(piece)]:
                write_at(fd, piece, offset + start + at)


def set_attributes(fd: int, entry: Entry, ownership: Ownership, mode: int) -> None:
    """Set owner, xattrs, mode and times, in this order: each may change those that follow.

    The mode is the entry's own, or the one that it has until everything is done.
    """
    uid, gid = ownership.of(entry)
    info = os.fstat(fd)
    if (info.st_uid, info.st_gid) != (uid, gid):
        os.fchown(fd, uid, gid)
    for name, value in entry.xattrs.items():
        os.setxattr(fd, name, value)
    os.fchmod(fd, mode)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))


def apply_attributes(fd: int, entry: Entry, ownership: Ownership, mode: int) -> list[str]:
    """Set the attributes of a file or folder and read them back: a volume may not keep them.

    Arguments are as for :func:`set_attributes`. Return one line for each attribute that differs.
    """
    set_attributes(fd, entry, ownership, mode)
    found = list(differences(entry, os.fstat(fd), ownership, mode))
    if entry.xattrs and read_xattrs(fd) != entry.xattrs:
        found.append(f"{printable(entry.path)}: has other xattrs")
    return found


def differences(
    entry: Entry, have: os.stat_result, ownership: Ownership, mode: int
) -> Iterator[str]:
    """Yield one line for each attribute in ``have`` that is not the one to be set."""
    for line in _differences(entry, have, ownership.of(entry), mode):
        yield f"{printable(entry.path)}: {line}"


def _differences(
    entry: Entry, have: os.stat_result, owner: tuple[int, int], mode: int
) -> Iterator[str]:
    want, kind = entry.kind, _KINDS.get(stat.S_IFMT(have.st_mode))
    if kind is not want and not (want is Kind.HARDLINK and kind in _WITH_NAMES):
        yield f"is no {want.value}"
        return
    if want is Kind.FILE and have.st_size != entry.size:
        yield f"has {have.st_size} bytes, not {entry.size}"
    if have.st_mode & 0o7777 != mode:
        yield f"has mode {have.st_mode & 0o7777:o}, not {mode:o}"
    if (have.st_uid, have.st_gid) != owner:
        yield f"belongs to {have.st_uid}:{have.st_gid}, not to {owner[0]}:{owner[1]}"
    if have.st_mtime_ns != entry.mtime_ns:
        yield f"has the time {have.st_mtime_ns}, not {entry.mtime_ns}"


def drop_other_xattrs(fd: int, entry: Entry) -> None:
    """Remove the ``user.`` xattrs that ``entry`` does not have: an earlier snapshot had them."""
    for name in read_xattrs(fd):
        if name not in entry.xattrs:
            os.removexattr(fd, name)


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
