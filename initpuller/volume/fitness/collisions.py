"""Names of one folder that a volume without case, or with Unicode folding, may take for one."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shared.tree.manifest import Entry


def suspects(entries: Iterable[Entry]) -> Iterator[tuple[bytes, bytes]]:
    """Yield pairs of paths that differ only in case, Unicode form, or a trailing dot or blank.

    The volume decides whether they are one file: each filesystem folds by its own table.

    Args:
        entries: of a manifest, in order: what is in a folder comes right after it.
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
    """Return a form of ``name`` that is the same for all names that some filesystem takes for one.

    It is as coarse as the coarsest: full case folding and canonical decomposition without the
    characters that are not shown (ext4), and without trailing dots and blanks (FAT, SMB).
    """
    text = name.decode("utf-8", "surrogateescape")
    if not text.isascii():
        text = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return text.casefold().rstrip(". ")
