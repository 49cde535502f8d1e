"""When the library changed between two runs: what of the earlier snapshot can stay in staging.

An entry can stay if the new scan saw it exactly as the old one did (size, times, inode and all)
and every frame it lay in is journalled; a frame need not be fetched if all its files can stay.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from initpuller.volume.reuse.renames import trace_of
from shared.digest import sha256, sha256_of_all
from shared.errors import SnapshotGone
from shared.frames.plan import FRAME, is_large
from shared.tree.manifest import Kind
from shared.tree.member_path import sort_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from initpuller.volume.records.journal import Journal
    from initpuller.volume.reuse.changes import Delta
    from initpuller.volume.reuse.renames import Moves, Trace
    from shared.frames.file_digests import FileDigests
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry

_BATCH = 4096
"""Digests that are copied at once."""
_MOST = 50_000
"""Files that are gone, and new ones, among which renamed ones are looked for. Where there are more,
none are: it would take memory."""
_NOTHING = sha256(b"")


@dataclass
class Carried:
    """What of the new snapshot's frames is on the volume from the old one's."""

    kept: list[tuple[int, str | None]] = field(default_factory=list)
    """Frames that need not be fetched, with their digests where these are known."""
    held: list[tuple[int, str]] = field(default_factory=list)
    """Frames of files that have changed or were renamed, with the digest of what is, or will be, in
    their place: those of which the agent has another one are fetched."""


def carry_over(
    old: ManifestFile,
    old_journal: Journal,
    old_digests: FileDigests,
    new: ManifestFile,
    new_digests: FileDigests,
    is_steady: Callable[[Entry], bool],
    delta: Delta,
    moves: Moves,
) -> Carried:
    """What can stay, and what may; copies the digests of files that can.

    Args:
        old: what staging has by the journal.
        old_journal: which frames of that.
        old_digests: of the files in it.
        new: what staging shall have.
        new_digests: get those of the files that stay.
        is_steady: whether a file that both saw alike has not changed in between.
        delta: is told of all that differs.
        moves: gets the files that were renamed.

    Raises:
        SnapshotGone: the new snapshot is a delta that keeps what is not on the volume.
        OSError: as the filesystem says.
    """
    files = _Files(old, old_journal, new, new_digests, is_steady)
    for number, entry, before in _paired(old, old_digests, new):
        was = before.entry if before is not None else None
        if entry is None:
            if before is not None:
                delta.gone(before.entry)
                files.left(before)
        elif entry.kind is not Kind.FILE:
            delta.seen(number, entry, was, stays=False)
            if before is not None:
                files.left(before)
        else:
            match = before if was is not None and was.kind is Kind.FILE else None
            delta.seen(number, entry, was, stays=files.take(number, entry, match))
    return files.carried(moves)


class _Files:
    """What becomes of the new snapshot's files, one after the other; see :func:`carry_over`."""

    def __init__(
        self,
        old: ManifestFile,
        journal: Journal,
        new: ManifestFile,
        digests: FileDigests,
        is_steady: Callable[[Entry], bool],
    ) -> None:
        self._old = old
        self._journal = journal
        self._new = new
        self._digests = digests
        self._is_steady = is_steady
        self._is_all_there = len(journal) == len(old.plan)
        self._fetched = bytearray(len(new.plan))
        self._tags: dict[int, str | None] = {}
        self._held: dict[int, str] = {}
        self._left: dict[Trace, tuple[_Match, range]] = {}
        """What was at paths that have something else now, or nothing; and which frames that is."""
        self._came: list[tuple[int, Entry]] = []
        """What is new at its path."""
        self._finds_moves = True
        self._copied: list[tuple[int, bytes | None]] = []

    def take(self, number: int, entry: Entry, match: _Match | None) -> bool:
        """Whether what is in its place stays, as it is or to be written over.

        Raises:
            SnapshotGone, OSError: see :func:`carry_over`.
        """
        if match is not None and self._is_good(entry, match):
            self._copied.append((number, match.digest))
            if len(self._copied) >= _BATCH:
                self._digests.put(self._copied)
                self._copied.clear()
            if not entry.kept:
                tags = match.tags(self._old, self._journal)
                self._tags.update(zip(self._new.plan.frames_of(number, entry), tags, strict=False))
            return True
        if entry.kept:
            raise SnapshotGone("the volume has not all that the delta keeps")
        frames = self._new.plan.frames_of(number, entry)
        for frame in frames:
            self._fetched[frame] = 1
        if match is None or match.entry.inode != entry.inode:
            self._came.append((number, entry))
            if match is not None:
                self.left(match, frames)
            self._bound()
        held = self._holds(entry, frames, match) if match is not None else {}
        self._held.update(held)
        return bool(held)

    def left(self, match: _Match, frames: range = range(0)) -> None:
        """Take in what is not at its path any more.

        Args:
            match: it.
            frames: of what is at its path now, if that is a file.
        """
        if match.entry.kind is Kind.FILE and match.entry.size > 0:
            self._left[trace_of(match.entry)] = match, frames
            self._bound()

    def _bound(self) -> None:
        if len(self._left) + len(self._came) > _MOST:
            self._finds_moves = False
        if not self._finds_moves:
            self._left.clear()
            self._came.clear()

    def _holds(self, entry: Entry, frames: range, match: _Match) -> dict[int, str]:
        """What ``match`` had, block by block, that may be what is in ``entry``."""
        if not is_large(entry) or not entry.data is match.entry.data is None:
            return {}
        pairs = zip(frames, match.tags(self._old, self._journal), strict=False)
        return {frame: tag for frame, tag in pairs if tag is not None}

    def carried(self, moves: Moves) -> Carried:
        """After the last of them.

        Args:
            moves: gets the files that were renamed.
        """
        self._digests.put(self._copied)
        self._find(moves)
        out = enumerate(self._fetched)
        kept = [(frame, self._tags.get(frame)) for frame, is_out in out if not is_out]
        return Carried(kept, sorted(self._held.items()))

    def _find(self, moves: Moves) -> None:
        """Match what is new with what has left, by what a rename does not change."""
        small: dict[int, tuple[Entry, _Match]] = {}
        held: dict[int, str] = {}
        for number, entry in self._came:
            match, displaced = self._left.get(trace_of(entry), (None, range(0)))
            if match is None or not match.is_whole(self._old, self._journal):
                continue
            blocks = self._holds(entry, self._new.plan.frames_of(number, entry), match)
            if blocks:
                held |= blocks
                moves.add(match.entry, entry)
                for frame in displaced:  # what was at its path goes away from there
                    self._held.pop(frame, None)
            elif match.digest is not None and not is_large(entry):
                small[number] = entry, match
        self._held |= held
        for first in {self._new.plan.frames_of(number, small[number][0])[0] for number in small}:
            self._hold_packed(first, small, moves)

    def _hold_packed(
        self, number: int, renamed: dict[int, tuple[Entry, _Match]], moves: Moves
    ) -> None:
        """If all files of a packed frame were renamed, what it holds is known."""
        frame, sums = self._new.plan[number], list[bytes]()
        for each, entry in enumerate(self._new.entries(frame.first, frame.count), frame.first):
            if entry.kind is not Kind.FILE or entry.kept:
                continue
            digest = renamed[each][1].digest if each in renamed else None
            if entry.size == 0:
                digest = _NOTHING
            if digest is None:
                return
            sums.append(digest)
        self._held[number] = sha256_of_all(sums).hex()
        inside = range(frame.first, frame.first + frame.count)
        for entry, match in (renamed[each] for each in inside if each in renamed):
            moves.add(match.entry, entry)

    def _is_good(self, entry: Entry, match: _Match) -> bool:
        if not entry.is_as_in(match.entry) or not self._is_steady(entry):
            return False
        if match.entry.kept and match.digest is None:
            return False  # it is in no frame of the old one, and was found damaged
        return self._is_all_there or match.is_whole(self._old, self._journal)


class _Match(NamedTuple):
    """An entry of the old snapshot."""

    position: int
    entry: Entry
    digest: bytes | None

    def is_whole(self, old: ManifestFile, journal: Journal) -> bool:
        """Whether all of it is on the volume."""
        return all(frame in journal for frame in old.plan.frames_of(self.position, self.entry))

    def tags(self, old: ManifestFile, journal: Journal) -> list[str | None]:
        """The digests of its pieces, if it is large, where they are known; see :class:`Journal`."""
        if not is_large(self.entry):
            return []
        if self.entry.kept:
            return [""] * len(range(0, self.entry.size, FRAME))
        return [journal.tag(frame) for frame in old.plan.frames_of(self.position, self.entry)]


def _paired(
    old: ManifestFile, digests: FileDigests, new: ManifestFile
) -> Iterator[tuple[int, Entry, _Match | None] | tuple[int, None, _Match]]:
    """Number and entry of all in the new snapshot, and what of the old one had its path.

    What the old one had at other paths comes between them, with nothing of the new.
    """
    known = (
        _Match(position, *each) for position, each in enumerate(zip(old, digests, strict=True))
    )
    before = next(known, None)
    for number, entry in enumerate(new):
        if before is not None and before.entry.path == entry.path:
            yield number, entry, before
            before = next(known, None)
            continue
        key = sort_key(entry.path)
        while before is not None and sort_key(before.entry.path) < key:
            yield number, None, before
            before = next(known, None)
        if before is not None and before.entry.path == entry.path:
            yield number, entry, before
            before = next(known, None)
        else:
            yield number, entry, None
    while before is not None:
        yield len(new.plan), None, before
        before = next(known, None)


def drop_files(*paths: str) -> None:
    """Remove records of an earlier snapshot; missing ones are fine."""
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)
