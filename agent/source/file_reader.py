"""Reads of a snapshot's files: as scanned in a cold snapshot, as they are now in a live one.

Reads raise SourceUnreadable if the agent has no permission, and StorageError if the disk reports an
error. Reads of a cold snapshot raise SourceChanged if the file differs from the scan, before or
after it was read. Reads of the agent's own copies of databases raise SnapshotGone if the copy is
gone or too short. All digests are raw SHA-256.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shared.errors import SnapshotGone, SourceChanged, SourceUnreadable, StorageError, printable
from shared.frames.file_digests import hash_descriptor
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.source.snapshot_files import SnapshotFiles
    from shared.tree.dir_stack import DirStack
    from shared.tree.manifest import Entry

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 1 << 20
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


def read_piece(folders: DirStack, entry: Entry, offset: int, into: memoryview) -> None:
    """Fill ``into`` with the bytes from ``offset`` of a file of a cold snapshot."""
    with _closing(_open(folders, entry), entry) as fd:
        _check(fd, entry)
        if _fill(fd, offset, into) < len(into):
            raise changed(entry)
        _check(fd, entry)


def read_live_piece(folders: DirStack, entry: Entry, offset: int, into: memoryview) -> bool:
    """Fill ``into``, which is all zeros, with the file's current bytes from ``offset``.

    If the file is gone or has become shorter, the rest stays zero, so that the frame keeps its
    layout. Return whether it was there: the next delta transfers its changes. Otherwise it may be
    back before that, and look unchanged.
    """
    try:
        opened = _open(folders, entry)
    except SourceChanged:
        return False
    with _closing(opened, entry) as fd:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_ino != entry.inode:
            return False
        _fill(fd, offset, into)
        return True


def read_content(
    snapshot: SnapshotFiles, folders: DirStack, entry: Entry, offset: int, into: memoryview
) -> bool:
    """Fill ``into``, which is all zeros, from the file of a snapshot, or from the copy of it.

    Return False if the file of a live snapshot was not there; see :func:`read_live_piece`. Raise
    SnapshotGone instead if it may be a database whose copy is lost.
    """
    if (copy := snapshot.copy_of(entry.path)) is not None:
        read_copy(copy, offset, into)
        return True
    if snapshot.about.kind == "cold":
        read_piece(folders, entry, offset, into)
        return True
    was_there = read_live_piece(folders, entry, offset, into)
    if not was_there:
        snapshot.refuse_lost_copy(entry)
    return was_there


def read_copy(path: str, offset: int, into: memoryview) -> None:
    """Fill ``into`` with the bytes from ``offset`` of the agent's own copy of a database."""
    try:
        with open(path, "rb", buffering=0) as file:
            filled = _fill(file.fileno(), offset, into)
    except OSError as error:
        raise _lost(error, path) from error
    if filled < len(into):
        raise SnapshotGone("the copy of a database is incomplete; scan again", path=path)


def hash_copy(path: str) -> bytes:
    """Return the digest of the agent's own copy of a database."""
    try:
        with open(path, "rb", buffering=0) as file:
            return hash_descriptor(file.fileno())
    except OSError as error:
        raise _lost(error, path) from error


def hash_live_file(folders: DirStack, entry: Entry) -> tuple[bytes, bool]:
    """Return the digest of a whole file, and whether :func:`read_live_piece` found all of it."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(_PIECE))
    was_there = True
    for offset in range(0, entry.size, _PIECE):
        into = piece[: min(_PIECE, entry.size - offset)]
        into[:] = bytes(len(into))
        was_there &= read_live_piece(folders, entry, offset, into)
        digest.update(into)
    return digest.digest(), was_there


def hash_file(folders: DirStack, entry: Entry) -> bytes:
    """Return the digest of a whole file of a cold snapshot."""
    with _closing(_open(folders, entry), entry) as fd:
        _check(fd, entry)
        digest = hash_descriptor(fd)
        _check(fd, entry)
        return digest


def changed(entry: Entry) -> SourceChanged:
    """Return the error for an entry that differs from its scan."""
    return SourceChanged(
        "the library changed while it was read",
        path=entry.path,
        hint="Make sure that Plex is stopped, then run again. Only changed files are transferred"
        " again.",
    )


def is_as_scanned(folders: DirStack, entry: Entry) -> bool:
    """Return whether a file or folder has the times, the inode and the size of its scan."""
    try:
        folder, name = folders.parent(entry.path)
        return _matches(os.stat(name, dir_fd=folder, follow_symlinks=False), entry)
    except OSError:
        return False


def _matches(info: os.stat_result, entry: Entry) -> bool:
    size = info.st_size if entry.kind is Kind.FILE else 0
    found = size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino
    return found == (entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode)


def _open(folders: DirStack, entry: Entry) -> int:
    try:
        folder, name = folders.parent(entry.path)
        return os.open(name, _FLAGS, dir_fd=folder)
    except OSError as error:
        raise _unreadable(error, entry) from error


@contextmanager
def _closing(fd: int, entry: Entry) -> Iterator[int]:
    try:
        yield fd
    except OSError as error:
        raise _unreadable(error, entry) from error
    finally:
        os.close(fd)


def _fill(fd: int, offset: int, into: memoryview) -> int:
    """Read into ``into`` until it is full or the file ends; return the number of bytes."""
    position = 0
    while position < len(into) and (got := os.preadv(fd, [into[position:]], offset + position)):
        position += got
    return position


def _check(fd: int, entry: Entry) -> None:
    if not _matches(os.fstat(fd), entry):
        raise changed(entry)


def _lost(error: OSError, path: str) -> SnapshotGone | StorageError:
    if error.errno == errno.ENOENT:
        return SnapshotGone("the copy of a database is gone; scan again", path=path)
    reason = os.strerror(error.errno or 0)
    return StorageError(f"the agent cannot read its copy of a database ({reason})", path=path)


def _unreadable(error: OSError, entry: Entry) -> SourceChanged | SourceUnreadable | StorageError:
    if error.errno in _GONE:
        return changed(entry)
    reason = os.strerror(error.errno or 0)
    if error.errno in (errno.EACCES, errno.EPERM):
        return SourceUnreadable([f"{printable(entry.path)} ({reason})"])
    return StorageError(f"the agent cannot read the file from disk ({reason})", path=entry.path)
