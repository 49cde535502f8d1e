"""What of a new scan is as an earlier snapshot saw it, and so need not be moved again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shared.errors import printable
from shared.tree.member_path import sort_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.source.snapshot_files import SnapshotFiles
    from shared.frames.file_digests import FileDigests
    from shared.tree.manifest import Entry
    from shared.tree.racy import Steadiness

_BATCH = 4096


class Marker:
    """Finds the entries of a walk in ``base``, and marks as kept those that are as in it.

    It is the :class:`shared.tree.walk.Memory` of that walk.

    Args:
        base: an earlier snapshot of the same library.
        exclude: what the walk leaves out.
        steadiness: of what it finds as it was.
        known: the base's entries and their digests, to be used up.
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
        left_out = [each.rpartition(" (")[0] for each in (*about.excluded, *about.skipped)]
        self._not_all_of = {path.rpartition("/")[0] for path in left_out}
        """Folders with names that are no entries: these are listed, so that they are told again."""
        self._tells_names = list(exclude) == about.exclude and about.kind != "rehearsal"
        """Of a rehearsal, what was beside databases is left out without a word."""

    def recall(self, outside: Entry, device: int) -> Entry | None:
        """Return the entry, marked, if it looks as in the base and cannot have changed unseen.

        Args:
            outside: as a look that opens nothing saw it; these come in manifest order.
            device: the number of the device that it is on.
        """
        if self._before.path != outside.path:
            self._go_on_to(sort_key(outside.path))
        is_telling = device in self._telling and self._steadiness.holds(outside)
        if is_telling and outside.looks_like(self._before):
            return msgspec.structs.replace(self._before, kept=True)
        return None

    def names(self, folder: Entry) -> Iterator[bytes] | None:
        """What the base had in ``folder``: making, removing and renaming set its times (inode(7)).

        Args:
            folder: as :meth:`recall` gave it.
        """
        if not self._tells_names or printable(folder.path) in self._not_all_of:
            return None
        return self._names_in(folder.path)

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

    def marked(self, entries: Iterable[Entry], digests: FileDigests) -> Iterator[Entry]:
        """Pass on ``entries`` of a walk that has asked :meth:`recall`, with their digests.

        Args:
            entries: in manifest order.
            digests: the new snapshot's: gets those of what is kept.
        """
        copied: list[tuple[int, bytes | None]] = []
        for number, entry in enumerate(entries):
            if entry.kept and self._digest is not None:
                copied.append((number, self._digest))
            if len(copied) >= _BATCH:
                digests.put(copied)
                copied.clear()
            yield entry
        digests.put(copied)

    def _go_on_to(self, key: bytes) -> None:
        while sort_key(self._before.path) < key and self._next():
            pass

    def _next(self) -> bool:
        """Go on to the base's next entry; whether there is one."""
        after = next(self._known, None)
        if after is not None:
            self._before, self._digest = after
        return after is not None
