"""A walk of the library for a preflight: counts, sizes, special entries, and the time to read it.

A sample of the files is read to estimate that time.
"""

from __future__ import annotations

import math
import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.errors import printable
from shared.frames.plan import FRAME
from shared.plex.library import NEVER, REGENERABLE
from shared.tree.excludes import matcher
from shared.tree.manifest import Kind, leads_out
from shared.tree.walk import TreeWalk, WalkOptions

if TYPE_CHECKING:
    from agent.source.library import LibrarySource

_SAMPLE = 256
"""Small files to read."""
_SECONDS = 1.0
"""Limit for the small files, and for the large file."""
_PIECE = 1024 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class TreeFacts:
    """The findings of one walk of the library."""

    entries: int = 0
    content_bytes: int = 0
    read_seconds: float = 0.0
    """Estimated time to read all files, from a sample."""
    regenerable: dict[str, int] = field(default_factory=dict)
    """Bytes of each folder or file that ``--exclude-regenerable`` leaves out, by its name."""
    links_out: list[str] = field(default_factory=list)
    """Symlinks that lead out of the library, as ``path -> target``."""
    unreadable: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Entries that never move: pid files, and entries without content, such as sockets."""


def read_tree_facts(base: int, source: LibrarySource) -> TreeFacts:
    """Return facts about every entry of the library. Read the content of a few files only.

    ``base`` is the descriptor of the folder that contains the library.
    """
    facts, sample, is_regenerable = TreeFacts(), _DiskSample(), matcher(REGENERABLE)
    top, own_name = source.top, source.name
    walk = TreeWalk(
        source.tree(base),
        WalkOptions(NEVER),
        omit=lambda record: facts.left_out.append(str(record)),
    )
    name, prefix = "", b""  # of the regenerable folder that the walk is in
    for entry in walk.entries():
        facts.entries += 1
        if entry.kind is Kind.SYMLINK and leads_out(entry, top):
            facts.links_out.append(f"{printable(entry.path)} -> {printable(entry.link)}")
        is_inside = bool(name) and entry.path.startswith(prefix)
        last = os.path.basename(entry.path)
        if not is_inside and is_regenerable is not None and is_regenerable(entry.path, last):
            name, prefix, is_inside = printable(last), entry.path + b"/", True
            facts.regenerable[name] = 0
        if entry.kind is Kind.FILE:
            facts.content_bytes += entry.size
            if is_inside:
                facts.regenerable[name] += entry.size
            sample.offer(own_name + entry.path[len(top) :], entry.size)
    facts.read_seconds = sample.read_seconds(base)
    facts.unreadable = walk.unreadable
    return facts


@dataclass
class _DiskSample:
    """Files to read: small ones, each with the same probability, and the largest file."""

    small: int = 0
    """Number of files that are no larger than a frame."""
    large_bytes: int = 0
    """Bytes of all larger files."""
    chosen: list[bytes] = field(default_factory=list)
    largest: tuple[int, bytes] = (0, b"")

    def offer(self, path: bytes, size: int) -> None:
        """Consider one more file of the library (Vitter 1985, algorithm R)."""
        if size > FRAME:
            self.large_bytes += size
            self.largest = max(self.largest, (size, path))
            return
        self.small += 1
        if len(self.chosen) < _SAMPLE:
            self.chosen.append(path)
        elif (place := random.randrange(self.small)) < _SAMPLE:  # noqa: S311 - no secret
            self.chosen[place] = path

    def read_seconds(self, base: int) -> float:
        """Return the estimated seconds for reading all files. Skip files that are gone."""
        seconds, count = 0.0, 0
        started = time.monotonic()
        for path in self.chosen:
            _read(base, path, math.inf)
            count += 1
            if time.monotonic() - started > _SECONDS:
                break
        if count:
            seconds += (time.monotonic() - started) / count * self.small
        if self.large_bytes:
            started = time.monotonic()
            size = _read(base, self.largest[1], started + _SECONDS)
            seconds += (time.monotonic() - started) / max(size, 1) * self.large_bytes
        return seconds


def _read(base: int, path: bytes, until: float) -> int:
    """Read the file until that time of the monotonic clock; return the number of bytes."""
    size = 0

    def opener(name: str, _flags: int) -> int:
        return os.open(name, _READ, dir_fd=base)

    # With an opener, open() also closes a folder that has replaced the file since the walk.
    with suppress(OSError), open(path, "rb", buffering=0, opener=opener) as file:
        while time.monotonic() < until and (piece := file.read(_PIECE)):
            size += len(piece)
    return size
