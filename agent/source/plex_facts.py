"""Walk a library once, and return its counts, sizes and special entries."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.source.disk_sample import DiskSample
from shared.errors import printable
from shared.plex.library import NEVER, REGENERABLE
from shared.tree.excludes import matcher
from shared.tree.manifest import Kind, leads_out
from shared.tree.walk import TreeWalk, WalkOptions

if TYPE_CHECKING:
    from agent.source.library import LibrarySource
    from shared.tree.manifest import Entry


@dataclass(frozen=True)
class TreeFacts:
    """The findings of one walk of the library."""

    entries: int
    content_bytes: int
    read_seconds: float
    """Estimated time to read all files, from a sample."""
    regenerable: dict[str, int]
    """Bytes of each folder or file that ``--exclude-regenerable`` leaves out, by its name."""
    links_out: list[str]
    """Symlinks that lead out of the library, as ``path -> target``."""
    unreadable: list[str]
    left_out: list[str]
    """Entries that never move: pid files, and entries without content, such as sockets."""


def read_tree_facts(base: int, source: LibrarySource) -> TreeFacts:
    """Return facts about every entry of the library. Reads the content of a few files only.

    Args:
        base: descriptor of the folder that the library is in.
        source: the library.
    """
    top = source.top
    tally = _Tally(top)
    sample = DiskSample()
    left_out: list[str] = []
    walk = TreeWalk(
        source.tree(base), WalkOptions(NEVER), omit=lambda record: left_out.append(str(record))
    )
    for entry in walk.entries():
        tally.add(entry)
        if entry.kind is Kind.FILE:
            sample.offer(source.name + entry.path[len(top) :], entry.size)
    return TreeFacts(
        entries=tally.entries,
        content_bytes=tally.content_bytes,
        read_seconds=sample.read_seconds(base),
        regenerable=tally.regenerable,
        links_out=tally.links_out,
        unreadable=walk.unreadable,
        left_out=left_out,
    )


@dataclass
class _Tally:
    """Counts that grow entry by entry."""

    top: bytes
    """Path of the library's own folder in the entries."""
    entries: int = 0
    content_bytes: int = 0
    regenerable: dict[str, int] = field(default_factory=dict)
    links_out: list[str] = field(default_factory=list)
    _is_regenerable = staticmethod(matcher(REGENERABLE) or (lambda _path, _name: False))
    _current: str = ""
    """Name of the regenerable folder that the walk is in."""
    _current_prefix: bytes = b""

    def add(self, entry: Entry) -> None:
        """Count one entry. A folder comes right before its content."""
        self.entries += 1
        if entry.kind is Kind.SYMLINK and leads_out(entry, self.top):
            self.links_out.append(f"{printable(entry.path)} -> {printable(entry.link)}")
        is_inside = bool(self._current) and entry.path.startswith(self._current_prefix)
        name = os.path.basename(entry.path)
        if not is_inside and self._is_regenerable(entry.path, name):
            self._current, self._current_prefix = printable(name), entry.path + b"/"
            self.regenerable[self._current] = 0
            is_inside = True
        if entry.kind is Kind.FILE:
            self.content_bytes += entry.size
            if is_inside:
                self.regenerable[self._current] += entry.size
