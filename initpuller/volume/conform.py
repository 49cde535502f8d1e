"""The last pass over the tree in staging: every entry is looked at, and folders are finished.

Entries come last first, so a folder comes after all that is in it: its time can be set, and nobody
touches it any more. What is looked at once, by name, costs a third of a walk of its own.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from initpuller.volume.fileattributes import drop_other_xattrs, read_xattrs, set_attributes
from shared.dirstack import DirStack
from shared.errors import printable, storage_error
from shared.manifest import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.ownership import Ownership
    from shared.manifest import Entry
    from shared.manifestfile import ManifestFile

_KINDS = {stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.SYMLINK}
_WITH_NAMES = (Kind.FILE, Kind.SYMLINK)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWNER = 0o700


def conform(
    staging: int, manifest: ManifestFile, ownership: Ownership, *, is_fresh: bool
) -> list[str]:
    """Finish the folders; one line for each entry that is missing, too many, or not as it should.

    Args:
        staging: descriptor of the staging folder, in which the tree is.
        manifest: what the tree shall be.
        ownership: whose it shall be. Without privileges, folders stay open for us.
        is_fresh: nothing in staging is of an earlier run, so nothing has an xattr that it was not
            given in this one.

    Raises:
        StorageError: as the filesystem says.
    """
    with DirStack(staging) as folders, DirStack(staging, create=True) as mended:
        return list(_ConformingPass(folders, mended, manifest, ownership, is_fresh).differences())


class _ConformingPass:
    def __init__(
        self,
        folders: DirStack,
        mended: DirStack,
        manifest: ManifestFile,
        ownership: Ownership,
        is_fresh: bool,  # noqa: FBT001 - private, called once
    ) -> None:
        self._folders = folders
        self._mended = mended
        self._manifest = manifest
        self._ownership = ownership
        self._is_fresh = is_fresh
        self._also = 0 if ownership.privileged else _OWNER
        self._children: dict[bytes, set[bytes]] = {}
        """The names in each folder whose own turn is still to come."""
        self._names: dict[tuple[int, int], bytes] = {}
        """Of files with several names, by device and inode: the first of them."""

    def differences(self) -> Iterator[str]:
        for entry in reversed(self._manifest):
            above, _, name = entry.path.rpartition(b"/")
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
        yield from self._strangers(self._folders.folder(b""), b"")

    def _folder(self, entry: Entry) -> Iterator[str]:
        try:
            fd = self._folders.folder(entry.path)
        except OSError:  # gone, closed or replaced since it was made
            fd = self._mended.folder(entry.path)
        yield from self._strangers(fd, entry.path)
        if not self._is_fresh:
            drop_other_xattrs(fd, entry)
        mode = entry.mode | self._also
        set_attributes(fd, entry, self._ownership, mode)
        has_xattrs = not self._wants_xattrs(entry) or read_xattrs(fd) == entry.xattrs
        yield from self._compare(entry, os.fstat(fd), mode, has_xattrs=has_xattrs)

    def _other(self, entry: Entry) -> Iterator[str]:
        try:
            folder, name = self._folders.parent(entry.path)
        except PermissionError:
            folder, name = self._mended.parent(entry.path)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        has_xattrs = True
        if self._wants_xattrs(entry) and stat.S_ISREG(info.st_mode):
            has_xattrs = _xattrs_of(folder, name) in (entry.xattrs, None)
        yield from self._compare(entry, info, entry.mode, has_xattrs=has_xattrs)
        if entry.kind is Kind.SYMLINK and stat.S_ISLNK(info.st_mode):
            target = os.readlink(name, dir_fd=folder)
            if target != entry.link:
                yield f"{printable(entry.path)}: points to {printable(target)}"
        if info.st_nlink > 1:
            yield from self._several_names(entry, (info.st_dev, info.st_ino))

    def _wants_xattrs(self, entry: Entry) -> bool:
        if entry.kind is Kind.HARDLINK:  # told of the first of its names
            return False
        return bool(entry.xattrs) or not self._is_fresh

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

    def _compare(
        self, entry: Entry, have: os.stat_result, mode: int, *, has_xattrs: bool
    ) -> Iterator[str]:
        want = entry.kind
        kind = _KINDS.get(stat.S_IFMT(have.st_mode))
        is_kind = kind is want or (want is Kind.HARDLINK and kind in _WITH_NAMES)
        owner = self._ownership.of(entry)
        if (
            is_kind
            and have.st_mtime_ns == entry.mtime_ns
            and have.st_mode & 0o7777 == mode
            and (have.st_uid, have.st_gid) == owner
            and (want is not Kind.FILE or have.st_size == entry.size)
            and has_xattrs
        ):
            return
        path = printable(entry.path)
        if not is_kind:
            yield f"{path}: is no {want.value}"
            return
        if want is Kind.FILE and have.st_size != entry.size:
            yield f"{path}: has {have.st_size} bytes, not {entry.size}"
        if have.st_mode & 0o7777 != mode:
            yield f"{path}: has mode {have.st_mode & 0o7777:o}, not {mode:o}"
        if (have.st_uid, have.st_gid) != owner:
            yield f"{path}: belongs to {have.st_uid}:{have.st_gid}, not to {owner[0]}:{owner[1]}"
        if have.st_mtime_ns != entry.mtime_ns:
            yield f"{path}: has the time {have.st_mtime_ns}, not {entry.mtime_ns}"
        if not has_xattrs:
            yield f"{path}: has other xattrs"


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
