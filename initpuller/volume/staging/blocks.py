"""Blocks of large files that an earlier snapshot put there: read, kept, or changed in places."""

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
    """The result of one frame."""

    digest: str
    """The frame's own."""
    late: list[tuple[int, Entry]]
    """Entries with their numbers that can be finished only when all frames are there: hard links,
    large files, and folders that may still get entries."""
    differences: list[str]
    """One line for each attribute that the volume did not keep, see
    :func:`initpuller.volume.staging.attributes.differences`."""
    is_held: bool = False
    """The volume had the block already; only its digest was compared."""


@dataclass(frozen=True)
class Block:
    """One block of a large file."""

    frame: Frame
    entry: Entry
    """The file."""

    @property
    def offset(self) -> int:
        """Where in the file it begins."""
        return self.frame.block * FRAME

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return block_length(self.frame, self.entry)


@dataclass(frozen=True)
class Patch:
    """The pieces of a block that have changed."""

    where: Sequence[tuple[int, int]]
    """Offset in the block and length of each piece."""
    changed: Buffer
    """All pieces in a row."""
    tag: str
    """The hexadecimal digest of the digest of the block that results."""


def read_block(staging: int, block: Block) -> bytes:
    """Return the content of a block on the volume; it may be shorter than the block.

    Args:
        staging: descriptor of the staging folder.
        block: the block.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        with DirStack(staging) as folders:
            fd = open_large_file(folders, block.entry, _UPDATE)
            try:
                return os.pread(fd, block.length, block.offset)
            finally:
                os.close(fd)
    except OSError as error:
        raise storage_error(error, printable(block.entry.path)) from error


def keep_block(staging: int, block: Block, tag: str) -> Unpacked:
    """Leave a block as it is. With the first block, the file gets its length.

    Args:
        staging: descriptor of the staging folder.
        block: the block.
        tag: its digest, on both sides.

    Raises:
        StorageError: the file cannot be written.
    """
    if block.frame.block == 0:
        _update(staging, block.entry, [])
    return _unpacked(block, tag, is_held=True)


def patch_block(staging: int, block: Block, old: bytes, patch: Patch) -> Unpacked:
    """Write the pieces of a block that have changed.

    Args:
        staging: descriptor of the staging folder.
        block: the block.
        old: its content on the volume, from :func:`read_block`.
        patch: the pieces.

    Raises:
        FrameDamaged: the result would have another digest; nothing was written.
        StorageError: the file cannot be written.
    """
    new, view = bytearray(block.length), memoryview(patch.changed)
    new[: len(old)] = old
    pieces, position = [], 0
    for offset, length in patch.where:
        piece = view[position : position + length]
        new[offset : offset + length] = piece
        pieces.append((block.offset + offset, piece))
        position += length
    if sha256_of_all([sha256(new)]).hex() != patch.tag:
        raise FrameDamaged("a block with its changes does not have the digest announced for it")
    _update(staging, block.entry, pieces)
    return _unpacked(block, patch.tag)


def open_large_file(folders: DirStack, entry: Entry, flags: int) -> int:
    """Open the file ``entry``, to write into it.

    Raises:
        OSError: the file cannot be opened.
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
            fd = open_large_file(folders, entry, _UPDATE)
            try:
                os.ftruncate(fd, entry.size)
                for offset, piece in pieces:
                    write_all(fd, piece, offset)
            finally:
                os.close(fd)
    except OSError as error:
        raise storage_error(error, printable(entry.path)) from error


def _unpacked(block: Block, tag: str, *, is_held: bool = False) -> Unpacked:
    late = [(block.frame.first, block.entry)] if block.frame.block == 0 else []
    return Unpacked(tag, late, [], is_held)
