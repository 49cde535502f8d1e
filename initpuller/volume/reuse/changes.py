"""The differences between two snapshots, as a list.

If the same process brought the older snapshot a moment ago, nothing else in staging needs a check.
So a cutover takes as long as this list is, not as long as the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from shared.tree.manifest import Entry

_MOST = 50_000
"""Entries of one list. A longer one would take memory, and saves little time."""


@dataclass(frozen=True)
class Changes:
    """Everything in which two snapshots differ."""

    changed: list[tuple[int, Entry]]
    """Entries of the newer snapshot that are new or differ, and the folders that contain them or
    have lost an entry. With their numbers, in order."""
    gone: list[bytes]
    """Paths to remove: the newer snapshot does not have them, or has something of another kind."""


class ChangeCollector:
    """Collects the differences, in the order of the manifests."""

    def __init__(self) -> None:
        self._changed: dict[int, Entry] = {}
        self._gone: list[bytes] = []
        self._above: list[tuple[int, Entry]] = []
        """The folders of the newer snapshot that contain the last entry."""
        self._is_complete = True

    def changes(self) -> Changes | None:
        """Return the differences; None if there are too many."""
        if not self._is_complete:
            return None
        return Changes(sorted(self._changed.items()), self._gone)

    def add_gone(self, before: Entry) -> None:
        """Add an entry whose path the newer snapshot does not have."""
        self._leave_folders(before)
        self._remove(before)
        self._touch_parent()

    def add(self, number: int, entry: Entry, before: Entry | None, *, stays: bool) -> None:
        """Add an entry of the newer snapshot.

        Args:
            number: its number.
            entry: the entry.
            before: the older snapshot's entry at the same path.
            stays: what is on the volume at this path is the same, or is written over.
        """
        self._leave_folders(entry)
        if not entry.kept:
            is_folder = entry.kind is Kind.DIRECTORY
            if before is not None and not stays and not (is_folder and before.kind is entry.kind):
                self._remove(before)
            if self._has_room():
                self._changed[number] = entry
            self._touch_parent()
        if entry.kind is Kind.DIRECTORY:
            self._above.append((number, entry))

    def _leave_folders(self, entry: Entry) -> None:
        while self._above and not entry.path.startswith(self._above[-1][1].path + b"/"):
            self._above.pop()

    def _touch_parent(self) -> None:
        if self._above and self._has_room():
            number, folder = self._above[-1]
            self._changed[number] = folder

    def _remove(self, before: Entry) -> None:
        if self._has_room():
            self._gone.append(before.path)

    def _has_room(self) -> bool:
        if len(self._changed) + len(self._gone) > _MOST:
            self._changed, self._gone = {}, []
            self._is_complete = False
        return self._is_complete
