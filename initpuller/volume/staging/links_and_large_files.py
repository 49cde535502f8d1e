"""Links and the attributes of large files, once all frames are on the volume.

Everything here can be repeated after a kill at any point.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from initpuller.volume.names import is_file, make_hardlink, make_symlink
from initpuller.volume.staging.attributes import drop_other_xattrs, set_attributes
from shared.errors import printable, storage_error
from shared.frames.file_digests import hash_descriptor
from shared.frames.plan import is_large
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind
from shared.tree.xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from initpuller.volume.ownership import Ownership
    from initpuller.volume.reuse.recorded import Recorded
    from shared.tree.manifest import Entry

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWNER = 0o700


class Finisher:
    """Finishes one staging tree.

    Args:
        staging: descriptor of the staging folder.
        recorded: the snapshot in it, the frames that earlier runs put there, and the digests of
            its files. Digests of files that are read back are stored there.
        ownership: the owners to set.
    """

    def __init__(self, staging: int, recorded: Recorded, ownership: Ownership) -> None:
        self._staging = staging
        self._manifest = recorded.manifest
        self._ownership = ownership
        self._journal = recorded.journal
        self._digests = recorded.digests
        self._lost: set[bytes] = set()

    def files_and_links(self, entries: Iterable[tuple[int, Entry]], *, all_files: bool) -> None:
        """Make links, set the attributes of large files, and store digests of files read back.

        Large files are read back, because their blocks came in any order. So is every file of an
        earlier run, because the volume may have changed since then. Small files of this run were
        hashed while they were written. A missing file gets no digest, so it is fetched again.

        Args:
            entries: the entries to finish, with their numbers.
            all_files: set the attributes of small files again, because the owner changed.

        Raises:
            StorageError: an entry cannot be read or written.
            IllegalLink: a hard link to a path that is not there.
        """
        self._lost.clear()
        with DirStack(self._staging, create=True) as folders, DirStack(self._staging) as others:
            for number, entry in entries:
                try:
                    if entry.kind is Kind.SYMLINK:
                        make_symlink(*folders.parent(entry.path), entry, self._ownership)
                    elif entry.kind is Kind.HARDLINK and entry.link not in self._lost:
                        make_hardlink(folders, others, entry)
                    elif entry.kind is Kind.FILE:
                        self._file(folders, number, entry, attributes=all_files)
                except OSError as error:
                    raise storage_error(error, printable(entry.path)) from error

    def close_folders(self) -> None:
        """Set the modes of folders that had to stay open, except for the library's own folder.

        Raises:
            StorageError: a mode cannot be set.
        """
        if self._ownership.privileged:
            return
        with DirStack(self._staging) as folders:
            for entry in reversed(self._manifest):
                if entry.kind is not Kind.DIRECTORY or entry.mode & _OWNER == _OWNER:
                    continue
                if entry.path == self._manifest.root:
                    continue
                try:
                    folder, name = folders.parent(entry.path)
                    os.chmod(name, entry.mode, dir_fd=folder)
                except OSError as error:
                    raise storage_error(error, printable(entry.path)) from error

    def _file(self, folders: DirStack, number: int, entry: Entry, *, attributes: bool) -> None:
        is_new = not is_large(entry) and not self._is_of_earlier_run(number, entry)
        if is_new and not attributes:
            return
        folder, name = folders.parent(entry.path)
        if not is_file(folder, name):
            self._lost.add(entry.path)
            self._digests.put([(number, None)])
            return
        try:
            fd = os.open(name, _READ, dir_fd=folder)
        except PermissionError:  # an earlier run gave it its own mode
            os.chmod(name, stat.S_IRUSR | stat.S_IWUSR, dir_fd=folder)
            fd = os.open(name, _READ, dir_fd=folder)
        try:
            if not is_new:
                self._digests.put([(number, hash_descriptor(fd))])
            if entry.xattrs or read_xattrs(fd):  # it may have been made read-only: xattr(7)
                os.fchmod(fd, stat.S_IRUSR | stat.S_IWUSR)
            drop_other_xattrs(fd, entry)
            set_attributes(fd, entry, self._ownership, entry.mode)
        finally:
            os.close(fd)

    def _is_of_earlier_run(self, number: int, entry: Entry) -> bool:
        if entry.kept or not self._journal.has_earlier_frames:
            return entry.kept
        frames = self._manifest.plan.frames_of(number, entry)
        return self._journal.is_of_earlier_run(frames[0])
