"""The builder of frames: it reads, hashes and packs source files in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent.source.file_reader import read_content
from shared.digest import sha256, sha256_of_all
from shared.frames.pieces import piece_digests
from shared.frames.plan import is_large, members
from shared.frames.tar_layout import header
from shared.native import native
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from agent.source.snapshot_files import SnapshotFiles
    from shared.digest import Buffer
    from shared.frames.plan import Frame


class BuiltFrame(NamedTuple):
    """One frame, not yet encoded."""

    tar: Buffer
    tag: bytes
    """The digest of the digests of all small files, or of a block's pieces, so each byte is hashed
    once. The other bytes of the frame follow from the manifest."""


def build_frame(snapshot: SnapshotFiles, number: int) -> BuiltFrame:
    """Build frame ``number``, and record the digests of the files that are complete in it.

    Raises:
        IndexError: If there is no such frame.
        SnapshotGone: If the library is not where it was scanned.
        SourceChanged, SourceUnreadable, StorageError: See :mod:`agent.source.file_reader`.
    """
    frame = snapshot.manifest.plan[number]
    return _build_usual(snapshot, frame) or _build_any(snapshot, frame)


def _build_usual(snapshot: SnapshotFiles, frame: Frame) -> BuiltFrame | None:
    """Return what :func:`_build_any` returns, if the accelerator can build ``frame``."""
    if native is None:
        return None
    lines = b"\n".join((*snapshot.manifest.lines(frame.first, frame.count), b""))
    if snapshot.copies is not None and snapshot.copies.may_be_in(lines):
        return None
    source, is_cold = snapshot.source, snapshot.about.kind == "cold"
    with source.opened() as base:
        place, shape = (source.name, source.top), (frame.block, frame.size)
        built = native.pack(base, place, lines, shape, is_cold)
    if built is None:
        return None
    tar, tag, digests = built
    if digests:
        snapshot.digests.put((frame.first + number, digest) for number, digest in digests)
    return BuiltFrame(tar, tag)


def _build_any(snapshot: SnapshotFiles, frame: Frame) -> BuiltFrame:
    entries = snapshot.manifest.entries(frame.first, frame.count)
    tar = bytearray(frame.size)
    view = memoryview(tar)
    pieces: list[bytes] = []
    digests: list[tuple[int, bytes | None]] = []
    misread: list[int] = []
    with snapshot.source.folders() as folders:
        for member in members(frame, entries):
            entry = member.entry
            if member.offset == 0:
                view[member.start : member.content] = header(entry)
            content = view[member.content : member.content + member.length]
            if entry.kind is Kind.FILE:
                if not read_content(snapshot, folders, entry, member.offset, content):
                    misread.append(member.number)
                if is_large(entry):
                    pieces = piece_digests(content)
                else:
                    pieces.append(sha256(content))
                    digests.append((member.number, pieces[-1]))
    if digests:
        snapshot.digests.put(digests)
    snapshot.misread.add(misread)
    return BuiltFrame(tar, sha256_of_all(pieces))
