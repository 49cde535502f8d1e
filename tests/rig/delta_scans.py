"""Scans of a library, and deltas that are compared with whole scans, and with Python's own."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING
from unittest import mock

import msgspec

from agent.snapshots import store
from agent.snapshots.delta import Marker
from agent.snapshots.delta_lines import DeltaLines, UnusualDelta
from agent.snapshots.store import SnapshotStore
from agent.source.library import CurrentLibrary
from initpuller.volume.filesystem import opened
from shared.frames.file_digests import FileDigests
from shared.native import native
from shared.tree.manifest import parse_line
from shared.tree.racy import Steadiness
from shared.tree.walk import Tree, TreeWalk, WalkOptions
from shared.wire.protocol import SnapshotRequest

if TYPE_CHECKING:
    from pathlib import Path

    from agent.source.snapshot_files import SnapshotFiles
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Kind as SnapshotKind

LATER = "2100-01-01T00:00:00.000+00:00"
"""A base that began then finds every file old enough."""


class Scans:
    """Scans of one library."""

    def __init__(self, state: Path, library: Path) -> None:
        state.mkdir(exist_ok=True)
        self.store = SnapshotStore(str(state), CurrentLibrary(str(library), str, str(state)))

    def scan(self, kind: SnapshotKind = "cold", base: str = "", *exclude: str) -> SnapshotFiles:
        """Scan the library."""
        request = SnapshotRequest(kind, list(exclude), base)
        return self.store.open(self.store.scan(request).id)

    def delta(self, base: SnapshotFiles, *exclude: str) -> dict[str, Entry]:
        """Return the entries of a delta, by path; they must be those of a whole scan.

        Without the accelerator it must be the same delta, mark by mark.
        """
        delta = self.scan("cold", base.about.id, *exclude)
        with mock.patch.object(store, "native", None):
            assert self.scan("cold", base.about.id, *exclude).about.id == delta.about.id
        whole = self.scan("cold", "", *exclude)
        unmarked = [msgspec.structs.replace(entry, kept=False) for entry in delta.manifest]
        assert unmarked == list(whole.manifest)
        assert delta.about.omitted is not None
        assert delta.about.omitted == whole.about.omitted
        return {os.fsdecode(entry.path): entry for entry in delta.manifest}


def sent(entries: dict[str, Entry]) -> set[str]:
    """The paths that are not kept."""
    return {path for path, entry in entries.items() if not entry.kept}


def marked(base: SnapshotFiles, library: Path, created: str) -> set[str]:
    """Return the paths that a walk sends if the base, of the kind that it has, began then."""
    kind = base.about.kind
    known = zip(base.comparable(), base.digests, strict=True)
    marker = Marker(base, (), Steadiness(kind, created), known)
    with opened(str(library.parent)) as folder:
        tree = Tree(folder, os.fsencode(library.name))
        found = list(TreeWalk(tree, memory=marker).entries())
        fast = found
        if native is not None:
            with suppress(UnusualDelta), tempfile.TemporaryDirectory() as place:
                walk = TreeWalk(tree, WalkOptions(inside=False))
                digests = FileDigests(f"{place}/digests", 0)
                delta = DeltaLines(base, walk, digests, Steadiness(kind, created))
                fast = [parse_line(x) for each in delta.lines() for x in each.splitlines()]
    assert fast == found
    return {os.fsdecode(entry.path) for entry in found if not entry.kept}
