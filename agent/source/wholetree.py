"""What is asked of the whole tree once its frames are out: every digest, and is it unchanged."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

import msgspec

from agent.source.filereader import changed, hash_file
from shared.dirstack import DirStack
from shared.errors import SourceUnreadable
from shared.manifest import Kind
from shared.memberpath import sort_key
from shared.sha256sums import format_sum
from shared.treewalk import TreeWalk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.source.snapshots import OpenSnapshot
    from shared.manifest import Entry

_BATCH = 64 * 1024


def complete_digests(snapshot: OpenSnapshot) -> None:
    """Read and hash each file whose digest is not known: the large ones, mostly.

    Raises:
        SourceChanged, SourceUnreadable, StorageError: see :mod:`agent.source.filereader`.
    """
    known = sum(digest is not None for digest in snapshot.digests)
    if known == snapshot.manifest.plan.files:
        return
    pairs = zip(snapshot.manifest, snapshot.digests, strict=True)
    with DirStack(snapshot.source.base) as folders:
        for number, (entry, digest) in enumerate(pairs):
            if entry.kind is Kind.FILE and digest is None:
                snapshot.digests.put([(number, hash_file(folders, entry))])


def sums(snapshot: OpenSnapshot) -> Iterator[bytes]:
    """``SHA256SUMS`` in pieces of whole lines; :func:`complete_digests` comes first."""
    lines: list[bytes] = []
    size = 0
    for entry, digest in zip(snapshot.manifest, snapshot.digests, strict=True):
        if entry.kind is not Kind.FILE or digest is None:
            continue
        lines.append(format_sum(digest, entry.path))
        size += len(lines[-1])
        if size >= _BATCH:
            yield b"".join(lines)
            lines, size = [], 0
    yield b"".join(lines)


def check_unchanged(snapshot: OpenSnapshot) -> None:
    """Look at the library again and compare every entry with the snapshot's.

    Not what is in it: whatever sets a target, content or xattr sets the ctime, too (inode(7)).

    Raises:
        SourceChanged: naming the first entry that is new, gone or different.
        SourceUnreadable: something cannot be read any more.
    """
    exclude = tuple(snapshot.about.exclude)
    walk = TreeWalk(snapshot.source.base, snapshot.source.name, exclude, inside=False)
    for seen, known in zip_longest(walk.entries(), snapshot.manifest):
        if seen is None or known is None or not _is_same(seen, known):
            either = [entry for entry in (seen, known) if entry is not None]
            raise changed(min(either, key=lambda entry: sort_key(entry.path)))
    if walk.seen.unreadable:
        raise SourceUnreadable(walk.seen.unreadable)


def _is_same(seen: Entry, known: Entry) -> bool:
    """Whether an entry that was looked at from outside is still the ``known`` one."""
    if seen == known:
        return True
    if known.kind is Kind.HARDLINK:
        return seen.is_as_in(known)
    inside = {
        "link": known.link,
        "data": known.data,
        "xattrs": known.xattrs,
        "kept": known.kept,
    }
    return msgspec.structs.replace(seen, **inside) == known
