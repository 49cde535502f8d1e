"""A scan's look at the library: a walk, and what goes into the manifest from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from agent.snapshots.delta import Marker
from agent.snapshots.delta_lines import DeltaLines, without_xattrs
from agent.source.database_copies import copy_databases
from agent.source.snapshot_files import DIGESTS
from shared.frames.file_digests import FileDigests
from shared.tree.racy import Steadiness
from shared.tree.walk import TreeWalk, WalkOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from agent.source.library import LibrarySource
    from agent.source.snapshot_files import SnapshotFiles
    from shared.tree.manifest import Entry
    from shared.tree.omitted import Omitted
    from shared.wire.protocol import Kind

    Entries: TypeAlias = Generator[Entry, None, None]
    Found: TypeAlias = tuple[TreeWalk, Entries | Generator[bytes, None, None]]
    """The walk, whose errors are known at its end, and the entries, or their lines."""


@dataclass(frozen=True)
class Look:
    """The library that is looked at, and how."""

    kind: Kind
    """Of the snapshot."""
    exclude: tuple[str, ...]
    """Patterns of what is left out."""
    source: LibrarySource
    folder: int
    """Descriptor of the folder that contains the library."""
    draft: str
    """Folder of the snapshot."""
    earlier: SnapshotFiles | None
    """The snapshot that a delta is based on."""

    @property
    def digests(self) -> FileDigests:
        """The snapshot's, without any yet."""
        return FileDigests(os.path.join(self.draft, DIGESTS), 0)


def any_walk(look: Look, omit: Callable[[Omitted], None]) -> Found:
    """Walk the library in any case; Python marks what a delta keeps."""
    options, earlier = WalkOptions(look.exclude, live=look.kind != "cold"), look.earlier
    marker = None
    if earlier is not None:
        known = zip(earlier.comparable(), earlier.digests, strict=True)
        marker = Marker(earlier, look.exclude, _steadiness(earlier), known)
    walk = TreeWalk(look.source.tree(look.folder), options, marker, omit)
    if look.kind != "rehearsal" and marker is None:
        return walk, walk.lines()
    entries = walk.entries()
    if look.kind == "rehearsal":
        copies = copy_databases(look.draft, look.source, look.folder, look.exclude)
        entries = copies.in_place(entries)
    return walk, entries if marker is None else marker.marked(entries, look.digests)


def usual_delta(look: Look, omit: Callable[[Omitted], None]) -> Found:
    """Have the accelerator find what has changed, for a delta that is no rehearsal.

    Raises:
        UnusualDelta: If that is not possible; also while the lines are made.
    """
    if look.earlier is None:
        raise ValueError("a delta without a base")
    options = WalkOptions(look.exclude, inside=False, live=look.kind != "cold")
    walk = TreeWalk(look.source.tree(look.folder), options, omit=without_xattrs(omit))
    delta = DeltaLines(look.earlier, walk, look.digests, _steadiness(look.earlier))
    return walk, delta.lines()


def _steadiness(earlier: SnapshotFiles) -> Steadiness:
    return Steadiness(earlier.about.kind, earlier.about.created)
