"""What a delta changes in a staging that is as the snapshot before says: nothing else is looked at.

That it is so is known where the same process has brought it there, a moment ago. A cutover is as
short as this list, not as long as the manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from initpuller.volume.names import remove
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from shared.tree.manifest import Entry

_MOST = 50_000
"""Entries of one delta; a larger one takes its time anyway, and would take memory here."""


class Delta:
    """Differences of two manifests, in their order (:mod:`initpuller.volume.reuse.matching`)."""

    def __init__(self) -> None:
        self._changed: dict[int, Entry] = {}
        self._gone: list[bytes] = []
        self._above: list[tuple[int, Entry]] = []
        self.is_small = True
        """Whether it is all here."""

    def changed(self) -> list[tuple[int, Entry]]:
        """What is not as it was, and the folders that it is in, with their numbers, in order."""
        return sorted(self._changed.items())

    def gone(self, before: Entry) -> None:
        """Take in an entry that is not there any more."""
        while self._above and not before.path.startswith(self._above[-1][1].path + b"/"):
            self._above.pop()
        self._gone.append(before.path)
        self._touch_parent()

    def seen(self, number: int, entry: Entry, before: Entry | None, *, stays: bool) -> None:
        """Take in an entry of the new snapshot.

        Args:
            number: its number.
            entry: it.
            before: what had its path.
            stays: that is not to be removed: it is the same, or will be written over.
        """
        while self._above and not entry.path.startswith(self._above[-1][1].path + b"/"):
            self._above.pop()
        if not entry.kept:
            self._changed[number] = entry
            self._touch_parent()
            is_folder = entry.kind is Kind.DIRECTORY
            if before is not None and not stays and not (is_folder and before.kind is entry.kind):
                self._gone.append(before.path)
        if entry.kind is Kind.DIRECTORY:
            self._above.append((number, entry))

    def _touch_parent(self) -> None:
        if self._above:
            number, entry = self._above[-1]
            self._changed[number] = entry
        if len(self._changed) + len(self._gone) > _MOST:
            self._changed.clear()
            self._gone.clear()
            self.is_small = False

    def remove_gone(self, staging: int) -> None:
        """Remove from staging what is gone, and what is to be made anew.

        Raises:
            OSError: as the filesystem says.
        """
        with DirStack(staging, create=True) as folders:
            for path in reversed(self._gone):
                folder, name = folders.parent(path)
                remove(folder, name)
