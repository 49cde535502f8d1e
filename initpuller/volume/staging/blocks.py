"""Blocks of large files that an earlier snapshot has brought: read, kept, or changed in places."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initpuller.volume.staging.attributes import write_all
from shared.digest import sha256, sha256_of_all
from shared.errors import FrameDamaged, printable, storage_error
from shared.frames.plan import FRAME, block_length
from shared.tree.dir_stack import DirStack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.digest import Buffer
    from shared.frames.plan import Frame
    from shared.tree.manifest import Entry

WHILE_ASSEMBLED = 0o600
"""The mode of a file that is not finished."""
_UPDATE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Unpacked:
    """What came of a frame."""

    digest: str
    """The frame's own."""
    late: list[tuple[int, Entry]]
    """Entries with their numbers that can be finished only when all frames are there: hard links,
    large files, and folders into which something may still come."""
    differences: list[str]
    """One line for each attribute that did not hold, see
    :func:`initpuller.volume.staging.attributes.differences`."""
    is_held: bool = False
    """It was there as it is, and only its digest was asked."""


def read_block(staging: int, frame: Frame, entry: Entry) -> bytes:
    """What is on the volume in the place of ``frame``; it may be shorter.

    Args:
        staging: descriptor of the staging folder.
        frame: which block.
        entry: of which file.

    Raises:
        StorageError: as the filesystem says.
    """
    try:
        with DirStack(staging) as folders:
            fd = open_block(folders, entry, _UPDATE)
            try:
                return os.pread(fd, block_length(frame, entry), frame.block * FRAME)
            finally:
                os.close(fd)
    except OSError as error:
        raise storage_error(error, printable(entry.path)) from error


def keep_block(staging: int, frame: Frame, entry: Entry, tag: str) -> Unpacked:
    """Leave a block as it is; with the first one, the file gets its length.

    Args:
        staging: descriptor of the staging folder.
        frame: which block.
        entry: of which file.
        tag: the digest that it has, on both sides.

    Raises:
        StorageError: as the filesystem says.
    """
    if frame.block == 0:
        _update(staging, entry, [])
    return _unpacked(frame, entry, tag, is_held=True)


def patch_block(
    staging: int,
    frame: Frame,
    entry: Entry,
    old: bytes,
    where: Sequence[tuple[int, int]],
    changed: Buffer,
    tag: str,
) -> Unpacked:
    """Write the pieces of a block that have changed.

    Args:
        staging: descriptor of the staging folder.
        frame: which block.
        entry: of which file.
        old: what :func:`read_block` gave.
        where: offset in the block and length of each piece.
        changed: all of them in a row.
        tag: the hexadecimal digest of the digest of the block as it shall be.

    Raises:
        FrameDamaged: it would not be that; nothing was written.
        StorageError: as the filesystem says.
    """
    new, view = bytearray(block_length(frame, entry)), memoryview(changed)
    new[: len(old)] = old
    pieces, position = [], 0
    for offset, length in where:
        piece = view[position : position + length]
        new[offset : offset + length] = piece
        pieces.append((frame.block * FRAME + offset, piece))
        position += length
    if sha256_of_all([sha256(new)]).hex() != tag:
        raise FrameDamaged("a block with its changes does not have the digest announced for it")
    _update(staging, entry, pieces)
    return _unpacked(frame, entry, tag)


def open_block(folders: DirStack, entry: Entry, flags: int) -> int:
    """The file ``entry``, to be written into.

    Raises:
        OSError: as the filesystem says.
    """
    folder, name = folders.parent(entry.path)
    try:
        return os.open(name, flags, WHILE_ASSEMBLED, dir_fd=folder)
    except PermissionError:  # finished by an earlier run, or for an earlier snapshot
        os.chmod(name, WHILE_ASSEMBLED, dir_fd=folder)
        return os.open(name, flags, WHILE_ASSEMBLED, dir_fd=folder)


def _update(staging: int, entry: Entry, pieces: Sequence[tuple[int, memoryview]]) -> None:
    try:
        with DirStack(staging) as folders:
            fd = open_block(folders, entry, _UPDATE)
            try:
                os.ftruncate(fd, entry.size)
                for offset, piece in pieces:
                    write_all(fd, piece, offset)
            finally:
                os.close(fd)
    except OSError as error:
        raise storage_error(error, printable(entry.path)) from error


def _unpacked(frame: Frame, entry: Entry, tag: str, *, is_held: bool = False) -> Unpacked:
    late = [(frame.first, entry)] if frame.block == 0 else []
    return Unpacked(tag, late, [], is_held)
