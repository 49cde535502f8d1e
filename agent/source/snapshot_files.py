"""The files of one snapshot, with their manifest, digests and database copies."""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from agent.source.database_copies import DatabaseCopies
from agent.source.library import LibrarySource, Place
from agent.source.misread import Comparable, Misread
from shared.digest import sha256_of_all
from shared.errors import SnapshotGone
from shared.frames.file_digests import FileDigests
from shared.frames.pieces import piece_digests, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.digest import Buffer
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry
    from shared.wire.protocol import OmittedList, Snapshot


DIGESTS = "digests"
"""Name of the file of digests in the folder of a snapshot."""
_MOST_BLOCKS = 16_384
"""64 GiB of large files that may have changed between two passes."""


class Origin(msgspec.Struct, frozen=True):
    """The part of a scan that clients do not see. A later scan needs it to find changes."""

    place: Place
    telling: list[int] = []
    """Devices that were written back before the scan; see :mod:`agent.source.writeback`."""


class KnownBlock(NamedTuple):
    """Digests of a block that was as scanned."""

    tag: bytes
    """The frame's digest."""
    short: bytes
    """Short digests of its pieces, 1 KiB."""

    @classmethod
    def of(cls, content: Buffer) -> Self:
        """Hash the block."""
        digests = piece_digests(content)
        return cls(sha256_of_all(digests), shortened(digests))


def omitted_path(folder: str, omitted: OmittedList) -> str:
    """Return the name of the file ``omitted`` in the folder of its snapshot.

    The same snapshot can be made again with another list, so the name has the list's digest.
    """
    return os.path.join(folder, f"omitted-{omitted.sha256}")


class SnapshotFiles:
    """The files of one snapshot, ready to be read.

    Args:
        folder: path of the snapshot's folder in the state folder.
        origin: see :class:`Origin`.
        about: the snapshot, as clients see it.
        manifest: the entries of the snapshot.
    """

    def __init__(
        self, folder: str, origin: Origin, about: Snapshot, manifest: ManifestFile
    ) -> None:
        self.source = LibrarySource(about.library, origin.place)
        self.telling = frozenset(origin.telling)
        """Devices on which times show every change since this scan."""
        self.about = about
        self.manifest = manifest
        self.digests = FileDigests(os.path.join(folder, DIGESTS), about.entries)
        self.misread = Misread(os.path.join(folder, "misread"))
        self.folder = folder
        self.blocks: dict[int, KnownBlock] = {}
        """Blocks of large files of a cold snapshot that were read since the scan, by the numbers of
        their frames. They are requested while the whole files are hashed."""
        self.copies = DatabaseCopies(folder) if about.kind == "rehearsal" else None
        """Copies that are read in place of the databases; None except in a rehearsal."""

    def may_know_more(self) -> bool:
        """Return whether to add a block to :attr:`blocks`, which is limited to 20 MiB."""
        return len(self.blocks) < _MOST_BLOCKS

    def comparable(self) -> Iterator[Entry]:
        """Return the entries for a later scan, in which nothing equals what was misread."""
        comparable = Comparable(self.misread)
        return map(comparable.made, count(), self.manifest)

    def copy_of(self, path: bytes) -> str | None:
        """Return the copy that is read in place of the file at ``path``, if there is one."""
        return None if self.copies is None else self.copies.find(path)

    def refuse_lost_copy(self, entry: Entry) -> None:
        """Raise SnapshotGone if a file that is not in the library may be a database's lost copy."""
        if self.copies is not None:
            self.copies.refuse_lost(entry)

    @property
    def omitted_path(self) -> str:
        """Path of the list of omitted entries. Older releases made none: :class:`SnapshotGone`."""
        if self.about.omitted is None:
            raise SnapshotGone("this snapshot lists nothing that was left out, scan again")
        return omitted_path(self.folder, self.about.omitted)
