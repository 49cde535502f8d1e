"""What of a Plex library a careful administrator looks at: databases, preferences, odd files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from shared.errors import printable
from shared.manifest import Kind
from shared.plexlibrary import DATED, NEVER, PREFERENCES, REGENERABLE
from shared.treewalk import TreeWalk, matcher


@dataclass
class TreeFacts:
    """One look at the whole library."""

    entries: int = 0
    content_bytes: int = 0
    regenerable_bytes: int = 0
    """Of files that ``--exclude-regenerable`` leaves out, dated copies of databases included."""
    dated: list[str] = field(default_factory=list)
    """Dated copies of databases."""
    dated_bytes: int = 0
    absolute_links: list[str] = field(default_factory=list)
    """``path -> target`` of symlinks that lead somewhere only this machine has."""
    unreadable: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def look_at_tree(base: int, name: bytes) -> TreeFacts:
    """Walk the library ``name`` in the folder ``base`` once, reading no content."""
    facts = TreeFacts()
    is_regenerable, is_dated = matcher(REGENERABLE), matcher(DATED)
    left_out: list[bytes] = []
    walk = TreeWalk(base, name, NEVER)
    for entry in walk.entries():
        facts.entries += 1
        if entry.kind is Kind.SYMLINK and entry.link.startswith(b"/"):
            facts.absolute_links.append(f"{printable(entry.path)} -> {printable(entry.link)}")
        if entry.kind is Kind.DIRECTORY and is_regenerable is not None:
            if is_regenerable(entry.path):
                left_out.append(entry.path + b"/")
            continue
        if entry.kind is not Kind.FILE:
            continue
        facts.content_bytes += entry.size
        if is_dated is not None and is_dated(entry.path):
            facts.dated.append(printable(entry.path))
            facts.dated_bytes += entry.size
        is_below = bool(left_out) and entry.path.startswith(left_out[-1])
        if is_below or (is_regenerable is not None and is_regenerable(entry.path)):
            facts.regenerable_bytes += entry.size
    facts.unreadable, facts.skipped = walk.seen.unreadable, walk.seen.skipped
    return facts


def read_preferences(server: str) -> dict[str, str]:
    """The attributes of ``Preferences.xml``, which are all that it has.

    Raises:
        OSError: it is not there, or may not be read.
        ValueError: it is empty, or no XML.
    """
    with open(os.path.join(server, PREFERENCES), "rb") as file:
        content = file.read()
    if not content:
        raise ValueError("is empty")
    try:
        return dict(ET.fromstring(content).attrib)  # noqa: S314 - the administrator's own file
    except ET.ParseError as error:
        raise ValueError(f"is no XML ({error})") from error
