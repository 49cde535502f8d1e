"""Compares two snapshots of a library: what the volume already has of the newer one.

A file can stay if both scans saw it alike (size, times, inode and all), and every frame it was in
is journaled. A frame need not be fetched if all its files can stay.

Everything is read in the order of the manifests and nothing is written, so the comparison can be
tested without a volume. :mod:`initpuller.volume.staging.staging` acts on its result.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from initpuller.volume.reuse.cursor import Cursor
from initpuller.volume.reuse.recorded import DAMAGED
from shared.errors import SnapshotGone
from shared.frames.plan import FRAME, is_large
from shared.tree.manifest import Kind
from shared.tree.member_path import sort_key
from shared.tree.racy import Steadiness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from initpuller.volume.reuse.cursor import Kept
    from initpuller.volume.reuse.recorded import Listing, Recorded
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Snapshot

_MOST = 50_000
"""Entries of one list of changes. A longer one would take memory, and saves little time."""
_STEPS = 16
"""Entries to compare one by one where the accelerator finds no long run: a call costs as much."""


@dataclass(frozen=True)
class Changes:
    """Everything in which two snapshots differ."""

    changed: list[tuple[int, Entry]]
    """Entries of the newer snapshot that are new or differ, and the folders that contain them or
    have lost an entry. With their numbers, in order."""
    gone: list[bytes]
    """Paths to remove: the newer snapshot does not have them, or has something of another kind."""


class _ChangeCollector:
    """Collects the differences, in the order of the manifests."""

    def __init__(self) -> None:
        self._changed: dict[int, Entry] = {}
        self._gone: list[bytes] = []
        self._above: list[tuple[int, Entry]] = []
        """The folders of the newer snapshot that contain the last entry."""
        self._is_complete = True

    def changes(self) -> Changes | None:
        """Return the differences; None if there are too many."""
        found = Changes(sorted(self._changed.items()), self._gone)
        return found if self._is_complete else None

    def add_gone(self, before: Entry) -> None:
        """Add an entry whose path the newer snapshot does not have."""
        self._leave_folders(before)
        self._gone.append(before.path)
        self._touch_parent()

    def add(self, number: int, entry: Entry, before: Entry | None, *, stays: bool) -> None:
        """Add an entry of the newer snapshot, with its number and what was ``before`` at its path.

        It ``stays`` if what is on the volume there is the same, or is written over.
        """
        self._leave_folders(entry)
        if not entry.kept:
            is_folder = entry.kind is Kind.DIRECTORY
            if before is not None and not stays and not (is_folder and before.kind is entry.kind):
                self._gone.append(before.path)
            self._changed[number] = entry
            self._touch_parent()
        if entry.kind is Kind.DIRECTORY:
            self._above.append((number, entry))

    def add_kept(self, run: Kept) -> None:
        """Add entries that both snapshots have, and that are kept."""
        self._leave_folders(run.last)
        self._above += run.folders

    def _leave_folders(self, entry: Entry) -> None:
        while self._above and not entry.path.startswith(self._above[-1][1].path + b"/"):
            self._above.pop()

    def _touch_parent(self) -> None:
        self._changed.update(self._above[-1:])
        if len(self._changed) + len(self._gone) > _MOST:
            self._changed, self._gone = {}, []
            self._is_complete = False


class Runs:
    """Runs of entries that both snapshots have in a row.

    They take 24 bytes each, so memory grows with the differences only.
    """

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._next = -1, -1
        """The numbers with which the last run continues."""

    def add(self, old: int, new: int, count: int = 1) -> None:
        """Add entries that follow one another, with the first numbers, which ascend."""
        if (old, new) == self._next:
            self._numbers[-1] += count
        else:
            self._numbers.extend((old, new, count))
        self._next = old + count, new + count

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield the first entry's numbers in the older and the newer snapshot, and how many."""
        numbers = iter(self._numbers)
        return zip(numbers, numbers, numbers, strict=True)


@dataclass(frozen=True)
class Reuse:
    """The content of a newer snapshot that the volume already has."""

    kept: list[tuple[int, str | None]]
    """Frames that need not be fetched. With their digests, where these are known."""
    held: list[tuple[int, str]]
    """Frames of large files that have changed, with the digest of the block that is on the volume
    in this place. Empty: its digest is unknown. The agent sends a block if its own differs."""
    same: Runs
    """Entries whose digests stay the same."""
    changes: Changes | None
    """Everything in which the snapshots differ; None if that is too much to list."""


def compare(old: Recorded, new: Listing) -> Reuse:
    """Return what the volume, which has ``old`` in staging, already has of ``new``.

    Raises:
        SnapshotGone: ``new`` is a delta, and keeps a file that is not on the volume.
    """
    comparison = _Comparison(old, new)
    before, after = Cursor(old.manifest, old.digests), Cursor(new.manifest)
    steps = 0
    while after.entry is not None:
        if steps == 0 and comparison.may_skip:
            run = after.skip_kept(before)
            steps = _STEPS if run is None or run.count < _STEPS else 1
            if run is not None:
                comparison.add_run(run)
                continue
        _compare_one(comparison, before, after, after.entry)
        steps = max(0, steps - 1)
    while before.entry is not None:
        comparison.add_gone(before.entry)
        before.advance()
    return comparison.result()


def _compare_one(comparison: _Comparison, before: Cursor, after: Cursor, entry: Entry) -> None:
    """Compare ``entry``, at which ``after`` is, and all older entries before its path."""
    older = before.entry
    if older is not None and older.path != entry.path:
        key = sort_key(entry.path)
        while older is not None and sort_key(older.path) < key:
            comparison.add_gone(older)
            before.advance()
            older = before.entry
    if older is not None and older.path == entry.path:
        same_path = _Before(before.number, older, before.digest)
        comparison.add(after.number, entry, same_path)
        before.advance()
    else:
        comparison.add(after.number, entry, None)
    after.advance()


class _Before(NamedTuple):
    """An entry of the older snapshot."""

    number: int
    entry: Entry
    digest: bytes | None


class _Comparison:
    def __init__(self, old: Recorded, new: Listing) -> None:
        self._old = old
        self._plan = new.manifest.plan
        self._is_steady = _steadiness(old.snapshot, new.snapshot)
        self._is_complete = len(old.journal) == len(old.manifest.plan)
        self.may_skip = self._is_complete and bool(new.snapshot.base)
        """Whether whatever the newer snapshot keeps is on the volume, unless it was damaged."""
        self._is_fetched = bytearray(len(self._plan))
        """One byte a frame of the newer snapshot: 1 if it has to be fetched."""
        self._tags: dict[int, str | None] = {}
        self._held: dict[int, str] = {}
        self._same = Runs()
        self._changes = _ChangeCollector()

    def add_gone(self, before: Entry) -> None:
        self._changes.add_gone(before)

    def add(self, number: int, entry: Entry, before: _Before | None) -> None:
        match = before if before is not None and before.entry.kind is entry.kind else None
        stays = False
        if entry.kind is Kind.FILE:
            stays = self._add_file(number, entry, match)
        elif match is not None:
            self._same.add(match.number, number)  # it has no digest: this makes for longer runs
        self._changes.add(number, entry, before.entry if before else None, stays=stays)

    def add_run(self, run: Kept) -> None:
        """Add entries of which :meth:`add` would find nothing else than that they stay."""
        self._same.add(run.older, run.newer, run.count)
        self._changes.add_kept(run)

    def result(self) -> Reuse:
        kept = [
            (frame, self._tags.get(frame))
            for frame, is_fetched in enumerate(self._is_fetched)
            if not is_fetched
        ]
        return Reuse(kept, sorted(self._held.items()), self._same, self._changes.changes())

    def _add_file(self, number: int, entry: Entry, before: _Before | None) -> bool:
        """Return whether the file on the volume stays, as it is or to be written over."""
        frames = self._plan.frames_of(number, entry)
        if before is not None and self._is_good(entry, before):
            self._same.add(before.number, number)
            self._tags.update(zip(frames, self._block_tags(before), strict=False))
            return True
        if entry.kept:
            raise SnapshotGone("the volume does not have everything that the delta keeps")
        for frame in frames:
            self._is_fetched[frame] = 1
        held = self._held_blocks(entry, frames, before) if before is not None else {}
        self._held.update(held)
        return bool(held)

    def _is_good(self, entry: Entry, before: _Before) -> bool:
        if not entry.is_as_in(before.entry) or not self._is_steady(entry):
            return False
        if before.entry.kept and before.digest == DAMAGED:
            return False
        frames = self._old.manifest.plan.frames_of(before.number, before.entry)
        return self._is_complete or all(frame in self._old.journal for frame in frames)

    def _held_blocks(self, entry: Entry, frames: range, before: _Before) -> dict[int, str]:
        """Return the digests of the blocks on the volume that ``entry`` may still have."""
        if not is_large(entry) or not entry.data is before.entry.data is None:
            return {}
        pairs = zip(frames, self._block_tags(before), strict=False)
        return {frame: tag for frame, tag in pairs if tag is not None}

    def _block_tags(self, before: _Before) -> list[str | None]:
        """Return the digests of a large file's blocks; empty where only the volume knows it."""
        if not is_large(before.entry):
            return []
        if before.entry.kept:
            return [""] * len(range(0, before.entry.size, FRAME))
        frames = self._old.manifest.plan.frames_of(before.number, before.entry)
        return [self._old.journal.tag(frame) for frame in frames]


def _steadiness(old: Snapshot, new: Snapshot) -> Callable[[Entry], bool]:
    """Return the rule for which of the files that both scans saw alike can stay.

    A file that a delta keeps can stay. So can a small file that the delta does not keep, if its
    times can be trusted: the agent reads it again, and its digest is compared. The blocks of a
    large file are requested one by one.
    """
    holds = Steadiness(old.kind, old.created).holds
    if new.base:
        return lambda entry: entry.kept or (not is_large(entry) and holds(entry))
    return holds
