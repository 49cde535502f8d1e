"""Blocks of large files that an earlier snapshot put there: read, kept, or changed in places."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import reopened
from shared.digest import sha256, sha256_of_all
from shared.errors import FrameDamaged, storage_errors
from shared.frames.pieces import PIECE
from shared.frames.plan import FRAME, block_length
from shared.positional_io import read_at, write_at
from shared.tree.dir_stack import DirStack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared.digest import Buffer
    from shared.frames.plan import Frame
    from shared.tree.manifest import Entry

_UPDATE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


SAME_RELEASE = "If it happens again, install the same release on both sides."
"""Hint for digests that are wrong."""


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
    """The hexadecimal digest of the digests of all pieces of the block that results."""


def read_block(staging: int, block: Block) -> bytes:
    """Return the content of a block on the volume; it may be shorter than the block."""
    with _opened(staging, block) as fd:
        return read_at(fd, block.length, block.offset)


def keep_block(staging: int, block: Block, tag: str) -> Unpacked:
    """Leave a block, whose digest is ``tag``, as it is. With the first, the file gets its length.

    ``staging`` is the descriptor of the staging folder, here and below.
    """
    if block.frame.block == 0:
        _update(staging, block, [])
    return _unpacked(block, tag, is_held=True)


def patch_block(staging: int, block: Block, held: Sequence[bytes], patch: Patch) -> Unpacked:
    """Write the pieces of a block that have changed over those with the digests ``held``.

    Raises:
        FrameDamaged: the result would have another digest; nothing was written.
    """
    digests = dict(zip(range(0, block.length, PIECE), held, strict=False))
    view, pieces, position = memoryview(patch.changed), [], 0
    for offset, length in patch.where:
        piece = view[position : position + length]
        digests[offset] = sha256(piece)
        pieces.append((block.offset + offset, piece))
        position += length
    if sha256_of_all(digests[offset] for offset in sorted(digests)).hex() != patch.tag:
        raise FrameDamaged(
            "a block with its changes does not have the digest announced for it",
            hint=SAME_RELEASE,
        )
    _update(staging, block, pieces)
    return _unpacked(block, patch.tag)


@contextmanager
def _opened(staging: int, block: Block) -> Iterator[int]:
    path = block.entry.path
    with (
        storage_errors(path),
        DirStack(staging) as folders,
        reopened(*folders.parent(path), _UPDATE) as fd,
    ):
        yield fd


def _update(staging: int, block: Block, pieces: Sequence[tuple[int, memoryview]]) -> None:
    with _opened(staging, block) as fd:
        os.ftruncate(fd, block.entry.size)
        for offset, piece in pieces:
            write_at(fd, piece, offset)


def _unpacked(block: Block, tag: str, *, is_held: bool = False) -> Unpacked:
    late = [(block.frame.first, block.entry)] if block.frame.block == 0 else []
    return Unpacked(tag, late, [], is_held)
