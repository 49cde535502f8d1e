"""What of a Plex library a careful administrator looks at: databases, preferences, odd files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from agent.source.readprobe import ReadSample
from shared.errors import printable
from shared.excludes import matcher
from shared.manifest import Kind
from shared.plexlibrary import NEVER, REGENERABLE
from shared.treewalk import TreeWalk


@dataclass
class TreeFacts:
    """One look at the whole library."""

    entries: int = 0
    content_bytes: int = 0
    regenerable: dict[str, int] = field(default_factory=dict)
    """What ``--exclude-regenerable`` leaves out, below Plex' own folder, and its bytes."""
    sample: ReadSample = field(default_factory=ReadSample)
    """Some of the files."""
    absolute_links: list[str] = field(default_factory=list)
    """``path -> target`` of symlinks that lead somewhere only this machine has."""
    unreadable: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What never moves: pid files, with their bytes, and what is no content, such as sockets."""


def look_at_tree(base: int, name: bytes) -> TreeFacts:
    """Walk the library ``name`` in the folder ``base`` once, reading no content."""
    facts = TreeFacts()
    is_regenerable = matcher(REGENERABLE)
    left_out = b""
    walk = TreeWalk(base, name, NEVER)
    for entry in walk.entries():
        facts.entries += 1
        if entry.kind is Kind.SYMLINK and entry.link.startswith(b"/"):
            facts.absolute_links.append(f"{printable(entry.path)} -> {printable(entry.link)}")
        is_below = bool(left_out) and entry.path.startswith(left_out)
        if (
            not is_below
            and is_regenerable is not None
            and is_regenerable(entry.path, os.path.basename(entry.path))
        ):
            left_out, is_below = entry.path + b"/", True
            facts.regenerable[printable(os.path.basename(entry.path))] = 0
        if entry.kind is not Kind.FILE:
            continue
        facts.content_bytes += entry.size
        facts.sample.offer(entry.path, entry.size)
        if is_below:
            facts.regenerable[printable(os.path.basename(left_out[:-1]))] += entry.size
    facts.unreadable = walk.seen.unreadable
    facts.left_out = [*walk.seen.skipped, *walk.seen.excluded]
    return facts
