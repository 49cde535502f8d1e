"""A snapshot of a real tree, without an agent, a sync or a state folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.source.library import open_library
from agent.source.snapshot_files import Origin, SnapshotFiles
from shared.frames.manifest_file import write_manifest
from shared.tree.walk import TreeWalk, WalkOptions
from shared.wire.protocol import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from shared.wire.protocol import Kind


def scanned(
    library: Path, state: Path, kind: Kind = "cold", *, placed: bool = False
) -> SnapshotFiles:
    """Scan ``library``, or Plex's own folder as ``placed``, into the new folder ``state``."""
    state.mkdir()
    found = open_library(str(library))
    source = found.placed() if placed else found
    with source.opened() as base:
        walk = TreeWalk(source.tree(base), WalkOptions(live=kind != "cold"))
        path = str(state / "manifest")
        manifest = write_manifest(path, os.fsencode(source.about.name), walk.lines(), kind)
    assert not walk.unreadable
    plan = manifest.plan
    about = Snapshot(
        id=manifest.name,
        kind=kind,
        library=source.about,
        created="2026-01-01T00:00:00.000+00:00",
        entries=plan.entries,
        files=plan.files,
        content_bytes=plan.content_bytes,
        frames=len(plan),
        manifest_bytes=os.path.getsize(path),
        exclude=[],
    )
    return SnapshotFiles(str(state), Origin(source.place), about, manifest)
