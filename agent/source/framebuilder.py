"""Makes any frame of a snapshot from the source files: read, hash and pack in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.source.filereader import read_piece
from shared.digest import sha256
from shared.dirstack import DirStack
from shared.frameplan import is_large, members
from shared.manifest import Kind
from shared.tarlayout import header

if TYPE_CHECKING:
    from agent.source.snapshots import OpenSnapshot


def build_frame(snapshot: OpenSnapshot, number: int) -> bytearray:
    """The tar bytes of frame ``number``; remembers the digests of the files that are whole in it.

    Raises:
        IndexError: there is no such frame.
        SourceChanged, SourceUnreadable, StorageError: see :mod:`agent.source.filereader`.
    """
    frame = snapshot.manifest.plan[number]
    entries = snapshot.manifest.entries(frame.first, frame.count)
    tar = bytearray(frame.size)
    view = memoryview(tar)
    digests: list[bytes | None] = []
    with DirStack(snapshot.source.base) as folders:
        for member in members(frame, entries):
            entry = member.entry
            if member.offset == 0:
                view[member.start : member.content] = header(entry)
            content = view[member.content : member.content + member.length]
            if entry.kind is Kind.FILE:
                read_piece(folders, entry, member.offset, content)
            whole = entry.kind is Kind.FILE and not is_large(entry)
            digests.append(sha256(content) if whole else None)
    if any(digests):
        snapshot.digests.put(frame.first, digests)
    return tar
