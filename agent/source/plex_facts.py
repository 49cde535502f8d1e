"""What of a Plex library a careful administrator looks at: databases, preferences, odd files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.source.disk_sample import ReadSample
from shared.errors import printable
from shared.plex.library import NEVER, REGENERABLE
from shared.tree.excludes import matcher
from shared.tree.manifest import Kind, leads_out
from shared.tree.walk import TreeWalk

if TYPE_CHECKING:
    from agent.source.library import LibrarySource


@dataclass
class TreeFacts:
    """One look at the whole library."""

    entries: int = 0
    content_bytes: int = 0
    regenerable: dict[str, int] = field(default_factory=dict)
    """What ``--exclude-regenerable`` leaves out, below Plex' own folder, and its bytes."""
    sample: ReadSample = field(default_factory=ReadSample)
    """Some of the files."""
    links_out: list[str] = field(default_factory=list)
    """``path -> target`` of symlinks that lead out of the library."""
    unreadable: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What never moves: pid files, with their bytes, and what is no content, such as sockets."""


def look_at_tree(base: int, source: LibrarySource) -> TreeFacts:
    """Walk the library once, reading no content.

    Args:
        base: descriptor of the folder that it is in.
        source: the library.
    """
    facts = TreeFacts()
    is_regenerable = matcher(REGENERABLE)
    left_out = b""
    top = source.top
    walk = TreeWalk(base, source.name, NEVER, top=top)
    for entry in walk.entries():
        facts.entries += 1
        if entry.kind is Kind.SYMLINK and leads_out(entry, top):
            facts.links_out.append(f"{printable(entry.path)} -> {printable(entry.link)}")
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
        facts.sample.offer(source.name + entry.path[len(top) :], entry.size)
        if is_below:
            facts.regenerable[printable(os.path.basename(left_out[:-1]))] += entry.size
    facts.unreadable = walk.seen.unreadable
    facts.left_out = [*walk.seen.skipped, *walk.seen.excluded]
    return facts
