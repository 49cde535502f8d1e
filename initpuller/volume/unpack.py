"""From a frame's tar bytes in memory straight into files in staging."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from initpuller.volume.fileattributes import set_attributes, write_content
from shared.digest import sha256
from shared.dirstack import DirStack
from shared.errors import printable, storage_error
from shared.frameplan import Frame, Member, is_large, members
from shared.manifest import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initpuller.volume.ownership import Ownership
    from shared.digest import Buffer
    from shared.filedigests import FileDigests
    from shared.manifest import Entry

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_WHILE_ASSEMBLED = 0o600


def unpack_frame(
    staging: int,
    frame: Frame,
    entries: Sequence[Entry],
    tar: Buffer,
    ownership: Ownership,
    digests: FileDigests,
) -> None:
    """Write the files, or the piece of a large file, that ``tar`` holds; make their folders.

    Links, attributes of folders and of large files come when all frames are there. A file that an
    interrupted run left is replaced, never written into, but for the pieces of a large one.

    Args:
        staging: descriptor of the staging folder.
        frame: which frame.
        entries: the manifest's entries that it touches.
        tar: its verified tar bytes, of its planned size.
        ownership: whose the files shall be.
        digests: where the digests of the files go.

    Raises:
        StorageError: as the filesystem says.
    """
    view = memoryview(tar)
    sums: list[bytes | None] = []
    with DirStack(staging, create=True) as folders:
        for member in members(frame, entries):
            entry = member.entry
            content = view[member.content : member.content + member.length]
            whole = entry.kind is Kind.FILE and not is_large(entry)
            sums.append(sha256(content) if whole else None)
            try:
                if entry.kind is Kind.DIRECTORY:
                    folders.folder(entry.path)
                elif whole:
                    _write_file(folders, entry, content, ownership)
                elif entry.kind is Kind.FILE:
                    _write_piece(folders, member, content)
            except OSError as error:
                raise storage_error(error, printable(entry.path)) from error
    if any(sums):
        try:
            digests.put(frame.first, sums)
        except OSError as error:
            raise storage_error(error, "the digests beside staging") from error


def remove(folder: int, name: bytes) -> None:
    """Remove whatever ``name`` is in ``folder``; nothing there is fine.

    Raises:
        OSError: as the filesystem says.
    """
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(info.st_mode):
        shutil.rmtree(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)


def _write_file(folders: DirStack, entry: Entry, content: memoryview, ownership: Ownership) -> None:
    folder, name = folders.parent(entry.path)
    try:
        fd = os.open(name, _CREATE | os.O_EXCL, _WHILE_ASSEMBLED, dir_fd=folder)
    except FileExistsError:
        remove(folder, name)
        fd = os.open(name, _CREATE | os.O_EXCL, _WHILE_ASSEMBLED, dir_fd=folder)
    try:
        if entry.data is not None:
            os.ftruncate(fd, entry.size)
        write_content(fd, content, 0, sparse=entry.data is not None)
        set_attributes(fd, entry, ownership)
    finally:
        os.close(fd)


def _write_piece(folders: DirStack, member: Member, content: memoryview) -> None:
    """Pieces come in any order, so each makes the file if it is missing."""
    entry = member.entry
    folder, name = folders.parent(entry.path)
    try:
        fd = os.open(name, _CREATE, _WHILE_ASSEMBLED, dir_fd=folder)
    except PermissionError:  # finished by an earlier run, which then found it damaged
        os.chmod(name, _WHILE_ASSEMBLED, dir_fd=folder)
        fd = os.open(name, _CREATE, _WHILE_ASSEMBLED, dir_fd=folder)
    try:
        os.ftruncate(fd, entry.size)
        write_content(fd, content, member.offset, sparse=entry.data is not None)
    finally:
        os.close(fd)
