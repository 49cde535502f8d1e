"""Work on the whole tree after its frames: all digests, and the check for changes."""

from __future__ import annotations

import os
from contextlib import closing
from itertools import islice, tee, zip_longest
from typing import TYPE_CHECKING

from agent.snapshots.delta import Marker
from agent.source.file_reader import (
    changed,
    hash_copy,
    hash_file,
    hash_live_file,
    is_as_scanned,
)
from shared.errors import SourceChanged, SourceUnreadable
from shared.frames.file_digests import split
from shared.frames.sha256sums import format_sums
from shared.native import native
from shared.plex.library import DATABASE_FOLDER, DATABASES, server_folder
from shared.tree.manifest import Kind, parse_line
from shared.tree.member_path import sort_key
from shared.tree.racy import Steadiness
from shared.tree.walk import TreeWalk, WalkOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from agent.source.snapshot_files import SnapshotFiles
    from shared.tree.dir_stack import DirStack
    from shared.tree.manifest import Entry

_FILE = b'{"kind":"file",'
"""All lines of files begin so in a manifest that an agent wrote."""
_TRACES = ("", DATABASE_FOLDER, *(f"{DATABASE_FOLDER}/{DATABASES[0]}{end}" for end in ("", "-wal")))
"""Paths below Plex's own folder. Each run of Plex changes at least one of them: it makes a pid
file, and its SQLite a ``-wal`` and a ``-shm`` (https://sqlite.org/walformat.html, section 1)."""


def complete_digests(snapshot: SnapshotFiles) -> None:
    """Read and hash each file whose digest is unknown: mostly the large ones.

    Raises:
        SnapshotGone: If the library is not where it was scanned.
        SourceChanged, SourceUnreadable, StorageError: See :mod:`agent.source.file_reader`.
    """
    with snapshot.source.folders() as folders:
        for number, entry in _unhashed(snapshot):
            snapshot.digests.put([(number, _hash(snapshot, folders, number, entry))])


def _unhashed(snapshot: SnapshotFiles) -> Iterator[tuple[int, Entry]]:
    """Yield the files without a digest, with their numbers. Only their lines are parsed."""
    for numbers, text in snapshot.manifest.pieces():
        digests, lines = split(snapshot.digests.block(numbers)), text.splitlines()
        for number, line, digest in zip(numbers, lines, digests, strict=True):
            if digest is None and line.startswith(_FILE):
                yield number, parse_line(line)


def _hash(snapshot: SnapshotFiles, folders: DirStack, number: int, entry: Entry) -> bytes:
    if snapshot.about.kind == "cold":
        return hash_file(folders, entry)
    copy = snapshot.copy_of(entry.path)
    if copy is not None:
        return hash_copy(copy)
    digest, was_there = hash_live_file(folders, entry)
    if not was_there:
        snapshot.refuse_lost_copy(entry)
        snapshot.misread.add([number])
    return digest


def sums(snapshot: SnapshotFiles) -> Iterator[bytes]:
    """Yield ``SHA256SUMS`` in pieces of whole lines. Call :func:`complete_digests` before."""
    for numbers, lines in snapshot.manifest.pieces():
        yield format_sums(lines, snapshot.digests.block(numbers))


def check_unchanged(snapshot: SnapshotFiles) -> None:
    """Walk the library again and compare every entry with the snapshot's.

    Raises:
        SnapshotGone: If the library is not where it was scanned.
        SourceChanged: With the first entry that is new, gone or different.
        SourceUnreadable: If an entry can no longer be read.
    """
    if native is None or not _is_unchanged(snapshot, native):
        _find_change(snapshot)


def _is_unchanged(snapshot: SnapshotFiles, accelerator: ModuleType) -> bool:
    """Return whether the accelerator finds every entry as it was. If not, it may be mistaken.

    It lists each folder. So it needs no proof that a folder's times show every change.
    """
    source = snapshot.source
    options = WalkOptions(tuple(snapshot.about.exclude), inside=False)
    known = (line for _, text in snapshot.manifest.pieces() for line in text.splitlines())
    with source.opened() as base:
        walk = TreeWalk(source.tree(base), options)
        with closing(walk.lines()) as batches:
            for seen in batches:
                lines = list(islice(known, seen.count(b"\n")))
                if not _are_same(seen, b"\n".join((*lines, b"")), accelerator):
                    return False
        return next(known, None) is None and not walk.unreadable and not walk.gone


def _are_same(seen: bytes, known: bytes, accelerator: ModuleType) -> bool:
    found = accelerator.unchanged(known, seen, None)
    if found is not None and found[:2] == (len(known), len(seen)):
        return True
    several, others = seen.splitlines(), known.splitlines()
    pairs = zip(map(parse_line, several), map(parse_line, others), strict=False)
    return len(several) == len(others) and all(_is_same(*pair) for pair in pairs)


def _find_change(snapshot: SnapshotFiles) -> None:
    """Do what :func:`check_unchanged` does, with an error that names the change."""
    about, source = snapshot.about, snapshot.source
    exclude = tuple(about.exclude)
    ours, for_memory = tee(zip(snapshot.manifest, snapshot.digests, strict=True))
    # A folder that was changed right after the scan may have the same times, so it is listed.
    memory = Marker(snapshot, exclude, Steadiness("live", about.created), for_memory)
    with source.opened() as base:
        walk = TreeWalk(source.tree(base), WalkOptions(exclude, inside=False), memory)
        for seen, then in zip_longest(walk.entries(), ours):
            known = then[0] if then is not None else None
            if seen is None or known is None or not _is_same(seen, known):
                either = [entry for entry in (seen, known) if entry is not None]
                raise changed(min(either, key=lambda entry: sort_key(entry.path)))
    require_complete(walk)


def require_complete(walk: TreeWalk) -> None:
    """Make sure that a walk, which has ended, has met every entry.

    Raises:
        SourceChanged: If an entry disappeared meanwhile.
        SourceUnreadable: If an entry cannot be read.
    """
    if walk.gone:
        raise SourceChanged("it disappeared during the scan", path=walk.gone[0])
    if walk.unreadable:
        raise SourceUnreadable(walk.unreadable)


def has_been_used(snapshot: SnapshotFiles) -> bool:
    """Return whether a Plex has run on the library since the scan. This takes milliseconds.

    Raises:
        SnapshotGone: If the library is not where it was scanned.
    """
    server = server_folder(snapshot.about.library.name)
    if server is None:
        return False
    paths = (os.fsencode(os.path.join(server, trace).rstrip("/")) for trace in _TRACES)
    found = [entry for path in paths if (entry := snapshot.manifest.find(path)) is not None]
    with snapshot.source.folders() as folders:
        return not all(is_as_scanned(folders, entry) for entry in found)


def _is_same(seen: Entry, known: Entry) -> bool:
    if known.kind is Kind.HARDLINK and seen.link != known.link:
        return False
    return seen.looks_like(known)
