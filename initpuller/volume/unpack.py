"""From a frame's tar bytes in memory straight into files in staging."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from initpuller.volume.fileattributes import set_attributes, write_content
from shared.digest import sha256, sha256_of_all
from shared.dirstack import DirStack
from shared.errors import FrameDamaged, printable, storage_error
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
    tag: str,
    ownership: Ownership,
    digests: FileDigests,
) -> None:
    """Verify and write the files, or the piece of one, that ``tar`` holds; make their folders.

    Links, attributes of folders and of large files come when all frames are there. A file that an
    interrupted run left is replaced, never written into, but for the pieces of a large one.

    Args:
        staging: descriptor of the staging folder.
        frame: which frame.
        entries: the manifest's entries that it touches.
        tar: its tar bytes, of its planned size.
        tag: the hexadecimal digest of the digests of the pieces of files in it.
        ownership: whose the files shall be.
        digests: where the digests of the files go.

    Raises:
        FrameDamaged: the pieces have other digests; nothing was written.
        StorageError: as the filesystem says.
    """
    view = memoryview(tar)
    inside = list(members(frame, entries))
    pieces = [view[each.content : each.content + each.length] for each in inside]
    sums = [
        sha256(piece) if each.entry.kind is Kind.FILE else None
        for each, piece in zip(inside, pieces, strict=True)
    ]
    if sha256_of_all(filter(None, sums)).hex() != tag:
        raise FrameDamaged("a frame's files do not have the digest announced for them")
    with DirStack(staging, create=True) as folders:
        for member, piece in zip(inside, pieces, strict=True):
            entry = member.entry
            try:
                if entry.kind is Kind.DIRECTORY:
                    folders.folder(entry.path)
                elif entry.kind is not Kind.FILE:
                    continue
                elif is_large(entry):
                    _write_piece(folders, member, piece)
                else:
                    _write_file(folders, entry, piece, ownership)
            except OSError as error:
                raise storage_error(error, printable(entry.path)) from error
    if is_large(entries[0]):
        return
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
