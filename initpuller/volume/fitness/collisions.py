"""Find names in one folder that a volume may treat as the same name."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shared.tree.manifest import Entry


def suspects(entries: Iterable[Entry]) -> Iterator[tuple[bytes, bytes]]:
    """Yield pairs of paths that differ only in case, Unicode form, or a trailing dot or blank.

    Only the volume can say whether they are one file: each filesystem has its own table.

    Args:
        entries: of a manifest, in order, so that the content of a folder comes right after it.
    """
    folders: list[tuple[bytes, dict[str, bytes]]] = []
    for entry in entries:
        above, _, name = entry.path.rpartition(b"/")
        while folders and folders[-1][0] != above:
            if above.startswith(folders[-1][0] + b"/") or not folders[-1][0]:
                break
            folders.pop()
        if not folders or folders[-1][0] != above:
            folders.append((above, {}))
        first = folders[-1][1].setdefault(folded(name), entry.path)
        if first != entry.path:
            yield first, entry.path


def folded(name: bytes) -> str:
    """Return a form of ``name`` that is the same for all names that some filesystem treats as one.

    It combines the rules of all filesystems: full case folding and canonical decomposition without
    invisible characters (ext4), and without trailing dots and spaces (FAT, SMB).
    """
    text = name.decode("utf-8", "surrogateescape")
    if not text.isascii():
        text = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return text.casefold().rstrip(". ")
