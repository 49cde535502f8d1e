"""The end of staging: links, large files, attributes of folders, and a check of everything.

Everything here can be repeated after a kill at any point.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from enum import Enum, auto
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import WHILE_ASSEMBLED, is_file, opened, reopened
from initpuller.volume.ownership import OWNER_ACCESS
from initpuller.volume.staging.attributes import (
    apply_attributes,
    differences,
    drop_other_xattrs,
    make_hardlink,
    make_symlink,
    set_attributes,
)
from shared.errors import printable, storage_error
from shared.frames.file_digests import hash_descriptor
from shared.frames.plan import is_large
from shared.tree.dir_stack import DirStack
from shared.tree.folder_names import folder_names
from shared.tree.manifest import Kind
from shared.tree.xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initpuller.volume.ownership import Ownership
    from initpuller.volume.reuse.recorded import Recorded
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry

_NO_FOLDER = (errno.ENOTDIR, errno.ELOOP)
"""Errors of opening as a folder what is another entry, for example a symlink."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Finisher:
    """Makes links, and finishes files that no frame could finish.

    It stores digests of files that it reads back in ``recorded``, the snapshot that is in staging.
    """

    def __init__(self, staging: int, recorded: Recorded, ownership: Ownership) -> None:
        self._staging = staging
        self._plan = recorded.manifest.plan
        self._ownership = ownership
        self._journal = recorded.journal
        self._digests = recorded.digests

    def files_and_links(self, entries: Iterable[tuple[int, Entry]], *, all_files: bool) -> None:
        """Make links, set the attributes of large files, and store digests of files read back.

        Large files are read back, because their blocks came in any order. So is every file of an
        earlier run, because the volume may have changed since then. Small files of this run were
        hashed while they were written. If ``all_files``, their attributes are set again, because
        the owner changed. A missing file gets no digest, so it is fetched again.

        Raises:
            IllegalLink: a hard link to a path that is not there.
        """
        lost: set[bytes] = set()
        with DirStack(self._staging, create=True) as folders, DirStack(self._staging) as others:
            for number, entry in entries:
                try:
                    if entry.kind is Kind.SYMLINK:
                        make_symlink(*folders.parent(entry.path), entry, self._ownership)
                    elif entry.kind is Kind.HARDLINK and entry.link not in lost:
                        make_hardlink(folders, others, entry)
                    elif entry.kind is Kind.FILE:
                        is_new = not is_large(entry) and not self._is_of_earlier_run(number, entry)
                        if is_new and not all_files:
                            continue
                        place = folders.parent(entry.path)
                        if is_file(*place):
                            self._file(place, number, entry, is_read=not is_new)
                        else:
                            lost.add(entry.path)
                            self._digests.put([(number, None)])
                except OSError as error:
                    raise storage_error(error, entry.path) from error

    def _file(self, place: tuple[int, bytes], number: int, entry: Entry, *, is_read: bool) -> None:
        with reopened(*place, _READ) as fd:
            if is_read:
                self._digests.put([(number, hash_descriptor(fd))])
            if entry.xattrs or read_xattrs(fd):  # it may have been made read-only: xattr(7)
                os.fchmod(fd, WHILE_ASSEMBLED)
            drop_other_xattrs(fd, entry)
            set_attributes(fd, entry, self._ownership, entry.mode)

    def _is_of_earlier_run(self, number: int, entry: Entry) -> bool:
        if entry.kept or not self._journal.has_earlier_frames:
            return entry.kept
        return self._journal.is_of_earlier_run(self._plan.frames_of(number, entry)[0])


def close_folders(staging: int, manifest: ManifestFile) -> None:
    """Set the modes of folders that had to stay open, except for the library's own folder."""
    with DirStack(staging) as folders:
        for entry in reversed(manifest):
            is_closed = entry.kind is Kind.DIRECTORY and entry.mode & OWNER_ACCESS != OWNER_ACCESS
            if not is_closed or entry.path == manifest.root:
                continue
            try:
                folder, name = folders.parent(entry.path)
                os.chmod(name, entry.mode, dir_fd=folder)
            except OSError as error:
                raise storage_error(error, entry.path) from error


class Extent(Enum):
    """Which entries of staging still need a check."""

    NEW = auto()
    """Those that no frame could finish: this run made everything, and checked the rest then."""
    CHANGES = auto()
    """Those that differ from what this process finished a moment before."""
    ALL = auto()
    """Every entry, because an earlier run made some of them. Nothing else may be in staging."""
    PLACED = auto()
    """Every entry of a library with its final name, and nothing is changed: it may be somebody's.

    Others may be beside it.
    """


_WHOLE = (Extent.ALL, Extent.PLACED)


def finish_attributes(
    staging: int, entries: Iterable[Entry], ownership: Ownership, extent: Extent
) -> list[str]:
    """Set the attributes of folders, compare all other entries; return a line for each difference.

    Entries come last first, so a folder comes after everything in it: its time can be set, because
    nothing touches the folder after that. One stat of each name takes a third of the time of a
    walk. Without privileges, folders stay open for the owner.
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
        self._children: dict[bytes, set[bytes]] = {}
        """The names that were seen in each folder whose own turn is still to come."""
        self._names: dict[tuple[int, int], bytes] = {}
        """The first name of each file with several names, by device and inode."""

    def differences(self, entries: Iterable[Entry]) -> Iterator[str]:
        are_all = self._extent in _WHOLE
        for entry in entries:
            above, _, name = entry.path.rpartition(b"/")
            if are_all:
                self._children.setdefault(above, set()).add(name)
            try:
                is_folder = entry.kind is Kind.DIRECTORY
                yield from self._folder(entry) if is_folder else self._other(entry)
            except FileNotFoundError:
                yield f"{printable(entry.path)}: is missing"
            except OSError as error:
                if error.errno not in _NO_FOLDER:
                    raise storage_error(error, entry.path) from error
                yield f"{printable(entry.path)}: is no folder, or is below what should be one"
        if self._extent is Extent.ALL:
            yield from self._strangers(self._folders.folder(b""), b"")

    def _folder(self, entry: Entry) -> Iterator[str]:
        try:
            fd = self._folders.folder(entry.path)
        except OSError:  # gone, closed or replaced since it was made
            if self._extent is Extent.PLACED:
                raise
            fd = self._mended.folder(entry.path)
        if self._extent in _WHOLE:
            yield from self._strangers(fd, entry.path)
        if self._extent is Extent.PLACED:
            yield from self._placed_folder(entry, fd)
            return
        if self._extent is not Extent.NEW:
            drop_other_xattrs(fd, entry)
        yield from apply_attributes(fd, entry, self._ownership, self._ownership.mode_of(entry))

    def _placed_folder(self, entry: Entry, fd: int) -> Iterator[str]:
        """Compare a folder without changing it; the library's own has its mode with the receipt."""
        info, is_top = os.fstat(fd), b"/" not in entry.path
        mode = stat.S_IMODE(info.st_mode) if is_top else entry.mode
        yield from differences(entry, info, self._ownership, mode)
        if entry.xattrs and read_xattrs(fd) != entry.xattrs:
            yield f"{printable(entry.path)}: has other xattrs"

    def _other(self, entry: Entry) -> Iterator[str]:
        try:
            folder, name = self._folders.parent(entry.path)
        except PermissionError:
            if self._extent is Extent.PLACED:
                raise
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
            first = entry.link if entry.kind is Kind.HARDLINK else entry.path
            known = self._names.setdefault((info.st_dev, info.st_ino), first)
            if known != first:
                yield f"{printable(entry.path)}: is the same file as {printable(known)}"

    def _strangers(self, fd: int, path: bytes) -> Iterator[str]:
        """Yield a line for each name in the folder ``fd`` that the manifest does not have."""
        found = set(map(os.fsencode, folder_names(fd)))
        for name in sorted(found - self._children.pop(path, set())):
            stranger = path + b"/" + name if path else name
            yield f"{printable(stranger)}: does not belong here"


def _xattrs_of(folder: int, name: bytes) -> dict[str, bytes] | None:
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(opened(name, _READ, dir_fd=folder))
        except PermissionError:
            return None  # only here: an open file whose xattrs are refused is not checked
        return read_xattrs(fd)
