"""Blocks of large files of which the puller has an older version."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from agent.source.file_reader import read_content
from agent.source.snapshot_files import KnownBlock
from shared.frames.plan import FRAME, block_length, is_large

if TYPE_CHECKING:
    from agent.source.snapshot_files import SnapshotFiles
    from shared.frames.plan import Frame
    from shared.tree.manifest import Entry


class Block:
    """The block that is frame ``number`` of ``snapshot``.

    The methods raise SnapshotGone, SourceChanged, SourceUnreadable and StorageError; see
    :mod:`agent.source.file_reader`.
    """

    def __init__(self, snapshot: SnapshotFiles, frame: Frame, entry: Entry) -> None:
        self._snapshot, self._frame, self._entry = snapshot, frame, entry

    @cached_property
    def content(self) -> bytearray:
        """The content."""
        snapshot, frame, entry = self._snapshot, self._frame, self._entry
        content = bytearray(block_length(frame, entry))
        into, offset = memoryview(content), frame.block * FRAME
        with snapshot.source.folders() as folders:
            if not read_content(snapshot, folders, entry, offset, into):
                snapshot.misread.add([frame.first])
        return content

    @cached_property
    def known(self) -> KnownBlock:
        """The block's digests. Of a cold snapshot, they are mostly hashed once for all requests."""
        snapshot, number = self._snapshot, self._frame.number
        found = snapshot.blocks.get(number)
        if found is None:
            found = KnownBlock.of(self.content)
            if snapshot.about.kind == "cold" and snapshot.may_know_more():
                snapshot.blocks[number] = found
        return found


def find_block(snapshot: SnapshotFiles, number: int) -> Block | None:
    """Return the block that is frame ``number``; None if that is no block of a large file.

    Raises:
        IndexError: If there is no such frame.
    """
    frame = snapshot.manifest.plan[number]
    [entry] = snapshot.manifest.entries(frame.first, 1)
    return Block(snapshot, frame, entry) if is_large(entry) else None
