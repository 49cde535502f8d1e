"""The last look at staging: folders are finished, and what no frame of this run has settled.

Entries come last first, so a folder comes after all that is in it: its time can be set, and nobody
touches it any more. What is looked at once, by name, costs a third of a walk of its own.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from initpuller.volume.staging.attributes import differences, drop_other_xattrs, read_xattrs, settle
from shared.errors import printable, storage_error
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initpuller.volume.ownership import Ownership
    from shared.tree.manifest import Entry

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWNER = 0o700


def conform(
    staging: int, entries: Iterable[Entry], ownership: Ownership, *, are_all: bool, are_new: bool
) -> list[str]:
    """Finish the folders; one line for each entry that is missing, too many, or not as it should.

    Args:
        staging: descriptor of the staging folder, in which the tree is.
        entries: what is to be looked at, children before their parents.
        ownership: whose it shall be. Without privileges, folders stay open for us.
        are_all: nothing else may be in staging. Else all others were looked at as they were made.
        are_new: no folder of an earlier snapshot is among them.

    Raises:
        StorageError: as the filesystem says.
    """
    with DirStack(staging) as folders, DirStack(staging, create=True) as mended:
        return list(
            _ConformingPass(folders, mended, ownership, are_new=are_new).differences(
                entries, are_all=are_all
            )
        )


class _ConformingPass:
    def __init__(
        self,
        folders: DirStack,
        mended: DirStack,
        ownership: Ownership,
        *,
        are_new: bool,
    ) -> None:
        self._are_new = are_new
        self._folders = folders
        self._mended = mended
        self._ownership = ownership
        self._also = 0 if ownership.privileged else _OWNER
        self._children: dict[bytes, set[bytes]] = {}
        """The names in each folder whose own turn is still to come."""
        self._names: dict[tuple[int, int], bytes] = {}
        """Of files with several names, by device and inode: the first of them."""

    def differences(self, entries: Iterable[Entry], *, are_all: bool) -> Iterator[str]:
        for entry in entries:
            above, _, name = entry.path.rpartition(b"/")
            if are_all:
                self._children.setdefault(above, set()).add(name)
            try:
                if entry.kind is Kind.DIRECTORY:
                    yield from self._folder(entry, are_all=are_all)
                else:
                    yield from self._other(entry)
            except FileNotFoundError:
                yield f"{printable(entry.path)}: is missing"
            except OSError as error:
                raise storage_error(error, printable(entry.path)) from error
        if are_all:
            yield from self._strangers(self._folders.folder(b""), b"")

    def _folder(self, entry: Entry, *, are_all: bool) -> Iterator[str]:
        try:
            fd = self._folders.folder(entry.path)
        except OSError:  # gone, closed or replaced since it was made
            fd = self._mended.folder(entry.path)
        if are_all:
            yield from self._strangers(fd, entry.path)
        if not self._are_new:
            drop_other_xattrs(fd, entry)
        yield from settle(fd, entry, self._ownership, entry.mode | self._also)

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
        """What is in the folder ``fd`` and not in the manifest."""
        found = set(map(os.fsencode, os.listdir(fd)))
        for name in sorted(found - self._children.pop(path, set())):
            stranger = path + b"/" + name if path else name
            yield f"{printable(stranger)}: does not belong here"


def _xattrs_of(folder: int, name: bytes) -> dict[str, bytes] | None:
    """The ``user.`` xattrs of a file; None if it may not be read."""
    try:
        fd = os.open(name, _READ, dir_fd=folder)
    except PermissionError:
        return None
    try:
        return read_xattrs(fd)
    finally:
        os.close(fd)
