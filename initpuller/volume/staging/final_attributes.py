"""The last check of staging: folders get their attributes, and everything else is compared.

Entries come last first, so a folder comes after everything in it: its time can be set, because
nothing touches the folder after that. One stat of each name takes a third of the time of a walk.
"""

from __future__ import annotations

import os
import stat
from enum import Enum, auto
from typing import TYPE_CHECKING

from initpuller.volume.staging.attributes import (
    apply_attributes,
    differences,
    drop_other_xattrs,
)
from shared.errors import printable, storage_error
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind
from shared.tree.xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initpuller.volume.ownership import Ownership
    from shared.tree.manifest import Entry

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWNER = 0o700


class Extent(Enum):
    """Which entries of staging still need a check."""

    NEW = auto()
    """Those that no frame could finish: this run made everything, and checked the rest then."""
    CHANGES = auto()
    """Those that differ from what this process finished a moment before."""
    ALL = auto()
    """Every entry, because an earlier run made some of them. Nothing else may be in staging."""


def finish_attributes(
    staging: int, entries: Iterable[Entry], ownership: Ownership, extent: Extent
) -> list[str]:
    """Set the attributes of folders, and compare all other entries.

    Args:
        staging: descriptor of the staging folder.
        entries: the entries to check, children before their parents.
        ownership: the owners to set. Without privileges, folders stay open for the owner.
        extent: which entries these are.

    Returns:
        One line for each entry that is missing, does not belong here, or differs.

    Raises:
        StorageError: an entry cannot be read or changed.
    """
    with DirStack(staging) as folders, DirStack(staging, create=True) as mended:
        check = _FinalCheck((folders, mended), ownership, extent)
        return list(check.differences(entries))


class _FinalCheck:
    def __init__(
        self, stacks: tuple[DirStack, DirStack], ownership: Ownership, extent: Extent
    ) -> None:
        self._folders, self._mended = stacks
        self._ownership = ownership
        self._extent = extent
        self._also = 0 if ownership.privileged else _OWNER
        self._children: dict[bytes, set[bytes]] = {}
        """The names that were seen in each folder whose own turn is still to come."""
        self._names: dict[tuple[int, int], bytes] = {}
        """The first name of each file with several names, by device and inode."""

    def differences(self, entries: Iterable[Entry]) -> Iterator[str]:
        are_all = self._extent is Extent.ALL
        for entry in entries:
            above, _, name = entry.path.rpartition(b"/")
            if are_all:
                self._children.setdefault(above, set()).add(name)
            try:
                if entry.kind is Kind.DIRECTORY:
                    yield from self._folder(entry)
                else:
                    yield from self._other(entry)
            except FileNotFoundError:
                yield f"{printable(entry.path)}: is missing"
            except OSError as error:
                raise storage_error(error, printable(entry.path)) from error
        if are_all:
            yield from self._strangers(self._folders.folder(b""), b"")

    def _folder(self, entry: Entry) -> Iterator[str]:
        try:
            fd = self._folders.folder(entry.path)
        except OSError:  # gone, closed or replaced since it was made
            fd = self._mended.folder(entry.path)
        if self._extent is Extent.ALL:
            yield from self._strangers(fd, entry.path)
        if self._extent is not Extent.NEW:
            drop_other_xattrs(fd, entry)
        yield from apply_attributes(fd, entry, self._ownership, entry.mode | self._also)

    def _other(self, entry: Entry) -> Iterator[str]:
        try:
            folder, name = self._folders.parent(entry.path)
        except PermissionError:
            folder, name = self._mended.parent(entry.path)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        yield from differences(entry, info, self._ownership, entry.mode)
        is_file = entry.kind is Kind.FILE and stat.S_ISREG(info.st_mode)  # under its first name
        if is_file and _xattrs_of(folder, name) not in (entry.xattrs, None):
            yield f"{printable(entry.path)}: has other xattrs"
        if entry.kind is Kind.SYMLINK and stat.S_ISLNK(info.st_mode):
            target = os.readlink(name, dir_fd=folder)
            if target != entry.link:
                yield f"{printable(entry.path)}: points to {printable(target)}"
        if info.st_nlink > 1:
            yield from self._several_names(entry, (info.st_dev, info.st_ino))

    def _several_names(self, entry: Entry, inode: tuple[int, int]) -> Iterator[str]:
        first = entry.link if entry.kind is Kind.HARDLINK else entry.path
        if self._names.setdefault(inode, first) != first:
            yield f"{printable(entry.path)}: is the same file as {printable(self._names[inode])}"

    def _strangers(self, fd: int, path: bytes) -> Iterator[str]:
        """Yield a line for each name in the folder ``fd`` that the manifest does not have."""
        found = set(map(os.fsencode, os.listdir(fd)))
        for name in sorted(found - self._children.pop(path, set())):
            stranger = path + b"/" + name if path else name
            yield f"{printable(stranger)}: does not belong here"


def _xattrs_of(folder: int, name: bytes) -> dict[str, bytes] | None:
    """Return the ``user.`` xattrs of a file; None if it may not be read."""
    try:
        fd = os.open(name, _READ, dir_fd=folder)
    except PermissionError:
        return None
    try:
        return read_xattrs(fd)
    finally:
        os.close(fd)
