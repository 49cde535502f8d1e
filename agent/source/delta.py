"""What of a new scan is as an earlier snapshot saw it, and so need not be moved again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shared.memberpath import sort_key
from shared.steady import Steadiness

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.source.snapshots import OpenSnapshot
    from shared.filedigests import FileDigests
    from shared.manifest import Entry

_BATCH = 4096


def marked(entries: Iterable[Entry], base: OpenSnapshot, digests: FileDigests) -> Iterator[Entry]:
    """``entries`` of a new scan, those marked as kept that are as in ``base``.

    Args:
        entries: in manifest order.
        base: an earlier snapshot of the same library.
        digests: the new snapshot's: gets those of what is kept.
    """
    steadiness = Steadiness(base.about.kind, base.about.created)
    known = zip(base.manifest, base.digests, strict=True)
    before, digest = next(known)
    copied: list[tuple[int, bytes | None]] = []
    for number, entry in enumerate(entries):
        key = sort_key(entry.path)
        while sort_key(before.path) < key and (following := next(known, None)) is not None:
            before, digest = following
        if not steadiness.holds(entry) or not entry.is_as_in(before):
            yield entry
            continue
        if digest is not None:
            copied.append((number, digest))
        if len(copied) >= _BATCH:
            digests.put(copied)
            copied.clear()
        yield msgspec.structs.replace(entry, kept=True)
    digests.put(copied)
