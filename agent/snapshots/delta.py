"""Comparison of a new scan with an earlier snapshot: unchanged entries need not move again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shared.tree.member_path import sort_key
from shared.tree.omitted import Omitted, Reason, read_omitted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from agent.source.snapshot_files import SnapshotFiles
    from shared.frames.file_digests import FileDigests
    from shared.tree.manifest import Entry
    from shared.tree.racy import Steadiness

_BATCH = 4096


class _Folders:
    """A set of any number of folders in a megabyte (a Bloom filter with one hash).

    An added folder is always found. With a million folders in the set, one in nine others is found,
    too. Such a folder is listed, which costs time and changes nothing.
    """

    _BITS = 8 * 1024 * 1024

    def __init__(self) -> None:
        self._bits = bytearray(self._BITS // 8)

    def add(self, path: bytes) -> None:
        number = hash(path) % self._BITS
        self._bits[number >> 3] |= 1 << (number & 7)

    def __contains__(self, path: bytes) -> bool:
        number = hash(path) % self._BITS
        return bool(self._bits[number >> 3] >> (number & 7) & 1)


class Marker:
    """Finds the entries of a walk in ``base``, and marks unchanged entries as kept.

    It is the :class:`shared.tree.walk.Memory` of that walk.

    Args:
        base: an earlier snapshot of the same library.
        exclude: patterns of the entries that the walk leaves out.
        steadiness: decides which entries are really unchanged.
        known: the base's entries and their digests. The marker consumes it.
    """

    def __init__(
        self,
        base: SnapshotFiles,
        exclude: tuple[str, ...],
        steadiness: Steadiness,
        known: Iterator[tuple[Entry, bytes | None]],
    ) -> None:
        about = base.about
        self._steadiness = steadiness
        self._telling = base.telling
        self._known = known
        self._before, self._digest = next(self._known)
        self._incomplete = _Folders()
        """Folders with names that are not entries. They are listed, to report these names again."""
        self._xattrs: Iterator[Omitted] = iter(())
        """Records of xattrs that the base left out, from the next one that the walk may need."""
        self._knows_names = list(exclude) == about.exclude and about.kind != "rehearsal"
        """A rehearsal leaves out files beside databases, without a record."""
        if about.omitted is None:  # an older release made the base: each folder is listed
            self._knows_names = False
        else:
            has_xattrs = False
            for record in read_omitted(base.omitted_path):
                if record.reason is Reason.XATTR:
                    has_xattrs = True
                else:
                    self._incomplete.add(record.path.rpartition(b"/")[0])
            if has_xattrs:
                omitted = read_omitted(base.omitted_path)
                self._xattrs = (each for each in omitted if each.reason is Reason.XATTR)
        self._next_xattr = next(self._xattrs, None)

    def recall(self, outside: Entry, device: int) -> Entry | None:
        """Return the entry, marked, if it looks as in the base and cannot have changed unseen.

        Args:
            outside: the entry as seen without opening it. Calls come in manifest order.
            device: number of the entry's device.
        """
        if self._before.path != outside.path:
            key = sort_key(outside.path)
            while sort_key(self._before.path) < key and self._next():
                pass
        is_telling = device in self._telling and self._steadiness.holds(outside)
        if is_telling and outside.looks_like(self._before):
            return msgspec.structs.replace(self._before, kept=True)
        return None

    def names(self, folder: Entry) -> Iterator[bytes] | None:
        """Return the base's names in ``folder``, an entry from :meth:`recall`.

        They are still right, because creating, removing and renaming set its times (inode(7)).
        """
        if not self._knows_names or folder.path in self._incomplete:
            return None
        return self._names_in(folder.path)

    def omitted(self, entry: Entry) -> Iterator[Omitted]:
        """Yield the base's records of xattrs of ``entry``, which :meth:`recall` returned."""
        key = sort_key(entry.path)
        while self._next_xattr is not None and self._next_xattr.key[0] <= key:
            if self._next_xattr.path == entry.path:
                yield self._next_xattr
            self._next_xattr = next(self._xattrs, None)

    def _names_in(self, folder: bytes) -> Iterator[bytes]:
        above, last = folder + b"/", folder
        while True:
            below_last = last + b"/"
            while (path := self._before.path) == last or (
                last is not folder and path.startswith(below_last)
            ):
                if not self._next():
                    return
            if not path.startswith(above):
                return
            last = path
            yield path[len(above) :]

    def marked(
        self, entries: Iterable[Entry], digests: FileDigests
    ) -> Generator[Entry, None, None]:
        """Yield ``entries`` of the walk, and copy the digests of the kept ones to ``digests``."""
        copied: list[tuple[int, bytes | None]] = []
        for number, entry in enumerate(entries):
            if entry.kept and self._digest is not None:
                copied.append((number, self._digest))
            if len(copied) >= _BATCH:
                digests.put(copied)
                copied.clear()
            yield entry
        digests.put(copied)

    def _next(self) -> bool:
        """Advance to the base's next entry; return whether there is one."""
        after = next(self._known, None)
        if after is not None:
            self._before, self._digest = after
        return after is not None
