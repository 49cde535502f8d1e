"""The usual case of :mod:`agent.snapshots.delta`, for the accelerator: lines, not entries.

The accelerator walks the whole library from outside, and compares long runs of lines. Only what has
changed is parsed here, and opened.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from agent.source.misread import Comparable
from shared.digest import SIZE
from shared.native import native
from shared.tree.manifest import Kind, format_line, parse_line
from shared.tree.member_path import sort_key
from shared.tree.omitted import Reason, read_omitted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from agent.source.snapshot_files import SnapshotFiles
    from shared.frames.file_digests import FileDigests
    from shared.tree.dir_stack import DirStack
    from shared.tree.manifest import Entry
    from shared.tree.omitted import Omitted
    from shared.tree.racy import Steadiness
    from shared.tree.walk import TreeWalk


class UnusualDelta(Exception):
    """Only :class:`agent.snapshots.delta.Marker` can make this delta."""


def without_xattrs(omit: Callable[[Omitted], None]) -> Callable[[Omitted], None]:
    """Return ``omit`` for a walk whose xattrs are read later: their records would be out of order.

    It raises :class:`UnusualDelta` for such a record.
    """

    def usual(record: Omitted) -> None:
        if record.reason is Reason.XATTR:
            raise UnusualDelta
        omit(record)

    return usual


class DeltaLines:
    """Lines of a delta: those of ``base``, marked as kept, or of what has changed since.

    Args:
        base: an earlier snapshot of the same library.
        walk: a new walk, which does not look inside.
        digests: gets the digests of what is kept.
        steadiness: decides which entries are really unchanged.

    Raises:
        UnusualDelta: If the base left out xattrs.
    """

    def __init__(
        self,
        base: SnapshotFiles,
        walk: TreeWalk,
        digests: FileDigests,
        steadiness: Steadiness,
    ) -> None:
        if any(each.reason is Reason.XATTR for each in read_omitted(base.omitted_path)):
            raise UnusualDelta
        self._walk, self._digests = walk, digests
        self._telling = base.telling
        self._steadiness = steadiness
        self._base_digests = base.digests
        self._comparable = Comparable(base.misread)
        self._before = 0
        """Number of the base's next entry."""
        self._pieces = base.manifest.pieces()
        self._known, self._known_digests = b"", b""
        """Lines of the base from the next one on that the walk may need, and their digests."""
        self._number = 0
        """Number of the delta's next entry."""
        self._gone: bytes | None = None
        """The last folder that could not be read, with a slash."""
        self._lost: set[bytes] = set()
        """Paths of what disappeared after the walk had seen it: no hard link may name it."""

    def lines(self) -> Generator[bytes, None, None]:
        """Yield the lines, one or many at a time.

        Raises:
            UnusualDelta: If times do not show every change on one of the devices.
        """
        with closing(self._walk.lines()) as batches, self._walk.folders() as folders:
            for seen in batches:
                # The walk notes a device before it yields the first entry there.
                if not self._walk.devices <= self._telling:
                    raise UnusualDelta
                yield from self._delta(folders, seen)

    def _delta(self, folders: DirStack, seen: bytes) -> Iterator[bytes]:
        start = 0
        while start < len(seen):
            size, lines = self._unchanged(seen[start:])
            if not size:
                size = seen.index(b"\n", start) + 1 - start
                entry = self._judged(folders, parse_line(seen[start : start + size - 1]))
                lines = b"" if entry is None else format_line(entry)
            start += size
            if lines:
                yield lines

    def _unchanged(self, seen: bytes) -> tuple[int, bytes]:
        """Return bytes of lines of ``seen`` that are certainly as in the base, and their lines."""
        if not self._known:
            self._read_piece()
        if native is None:
            return 0, b""
        found = native.unchanged(self._known, seen, self._steadiness.surely_before)
        if found is None or not found[1]:
            return 0, b""
        known, size, lines = found
        self._keep(lines.count(b"\n"), known)
        return size, lines

    def _judged(self, folders: DirStack, outside: Entry) -> Entry | None:
        """Return a single entry of the delta; None if it cannot be read any more."""
        if outside.link in self._lost:  # the accelerator's walk has seen its file
            raise UnusualDelta
        if self._gone is not None and outside.path.startswith(self._gone):
            self._lost.add(outside.path)
            return None
        known = self._find(outside)
        if known is not None:
            self._keep(1, self._known.index(b"\n") + 1)
            return msgspec.structs.replace(known, kept=True)
        entry: Entry | None = outside
        if outside.kind is not Kind.HARDLINK:
            entry = self._walk.look_inside(folders, outside)
        if entry is None:
            self._gone = outside.path + b"/"
            self._lost.add(outside.path)
        else:
            self._number += 1
        return entry

    def _find(self, outside: Entry) -> Entry | None:
        """Return the base's next entry if it is this one, unchanged; skip what comes before it."""
        is_steady = self._steadiness.holds(outside)
        key, before = sort_key(outside.path), None
        while self._known or self._read_piece():
            before = parse_line(self._known[: self._known.index(b"\n")])
            if sort_key(before.path) >= key:
                break
            self._skip(1, self._known.index(b"\n") + 1)
        if before is None or not outside.looks_like(before):
            return None
        is_same = outside.kind is not Kind.HARDLINK or outside.link == before.link
        before = self._comparable.made(self._before, before)
        return before if is_same and is_steady and outside.looks_like(before) else None

    def _keep(self, count: int, size: int) -> None:
        """Take the base's next ``count`` entries over, whose lines have ``size`` bytes."""
        self._digests.put_runs([(self._number, self._known_digests[: count * SIZE])])
        self._number += count
        self._skip(count, size)

    def _skip(self, count: int, size: int) -> None:
        self._before += count
        self._known = self._known[size:]
        self._known_digests = self._known_digests[count * SIZE :]

    def _read_piece(self) -> bool:
        """Read more of the base; return False at its end."""
        numbers, self._known = next(self._pieces, (range(0), b""))
        if not self._comparable.numbers.isdisjoint(numbers):
            lines = self._known.splitlines()
            made = map(self._comparable.made, numbers, map(parse_line, lines))
            self._known = b"".join(map(format_line, made))
        self._known_digests = self._base_digests.block(numbers)
        return bool(self._known)
