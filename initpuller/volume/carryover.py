"""When the library changed between two runs: what of the earlier snapshot can stay in staging.

An entry can stay if the new scan saw it exactly as the old one did (size, times, inode and all)
and every frame it lay in is journalled; a frame need not be fetched if all its files can stay.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from initpuller.volume.names import remove
from shared.dirstack import DirStack
from shared.errors import SnapshotGone
from shared.frameplan import is_large
from shared.manifest import Kind
from shared.memberpath import sort_key
from shared.treewalk import TreeWalk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from initpuller.volume.delta import Delta
    from initpuller.volume.journal import Journal
    from shared.filedigests import FileDigests
    from shared.manifest import Entry
    from shared.manifestfile import ManifestFile

_BATCH = 4096
"""Digests that are copied at once."""


@dataclass
class Carried:
    """What of the new snapshot's frames is on the volume from the old one's."""

    kept: list[tuple[int, str | None]] = field(default_factory=list)
    """Frames that need not be fetched, with their digests where these are known."""
    held: list[tuple[int, str]] = field(default_factory=list)
    """Frames of large files that have changed, with the digest of what is in their place: those of
    which the agent has another one are fetched."""


def carry_over(
    old: ManifestFile,
    old_journal: Journal,
    old_digests: FileDigests,
    new: ManifestFile,
    new_digests: FileDigests,
    is_steady: Callable[[Entry], bool],
    delta: Delta,
) -> Carried:
    """What can stay, and what may; copies the digests of files that can.

    Args:
        old: what staging has by the journal.
        old_journal: which frames of that.
        old_digests: of the files in it.
        new: what staging shall have.
        new_digests: get those of the files that stay.
        is_steady: whether a file that both saw alike has not changed in between.
        delta: is told of all that differs.

    Raises:
        SnapshotGone: the new snapshot is a delta that keeps what is not on the volume.
        OSError: as the filesystem says.
    """
    files = _Files(old, old_journal, new, new_digests, is_steady)
    for number, entry, before in _paired(old, old_digests, new):
        was = before.entry if before is not None else None
        if entry is None:
            if was is not None:
                delta.gone(was)
        elif entry.kind is not Kind.FILE:
            delta.seen(number, entry, was, stays=False)
        else:
            match = before if was is not None and was.kind is Kind.FILE else None
            delta.seen(number, entry, was, stays=files.take(number, entry, match))
    return files.carried()


class _Files:
    """What becomes of the new snapshot's files, one after the other; see :func:`carry_over`."""

    def __init__(
        self,
        old: ManifestFile,
        journal: Journal,
        new: ManifestFile,
        digests: FileDigests,
        is_steady: Callable[[Entry], bool],
    ) -> None:
        self._old = old
        self._journal = journal
        self._new = new
        self._digests = digests
        self._is_steady = is_steady
        self._is_all_there = len(journal) == len(old.plan)
        self._fetched = bytearray(len(new.plan))
        self._tags: dict[int, str | None] = {}
        self._held: list[tuple[int, str]] = []
        self._copied: list[tuple[int, bytes | None]] = []

    def take(self, number: int, entry: Entry, match: _Match | None) -> bool:
        """Whether what is in its place stays, as it is or to be written over.

        Raises:
            SnapshotGone, OSError: see :func:`carry_over`.
        """
        if match is not None and self._is_good(entry, match):
            self._copied.append((number, match.digest))
            if len(self._copied) >= _BATCH:
                self._digests.put(self._copied)
                self._copied.clear()
            if not entry.kept:
                tags = match.tags(self._old, self._journal)
                self._tags.update(zip(self._new.plan.frames_of(number, entry), tags, strict=False))
            return True
        if entry.kept:
            raise SnapshotGone("the volume has not all that the delta keeps")
        frames = self._new.plan.frames_of(number, entry)
        for frame in frames:
            self._fetched[frame] = 1
        if match is None or not is_large(entry) or not entry.data is match.entry.data is None:
            return False
        pairs = zip(frames, match.tags(self._old, self._journal), strict=False)
        held = [(frame, tag) for frame, tag in pairs if tag is not None]
        self._held += held
        return bool(held)

    def carried(self) -> Carried:
        """After the last of them."""
        self._digests.put(self._copied)
        out = enumerate(self._fetched)
        kept = [(frame, self._tags.get(frame)) for frame, is_out in out if not is_out]
        return Carried(kept, self._held)

    def _is_good(self, entry: Entry, match: _Match) -> bool:
        if not entry.is_as_in(match.entry) or not self._is_steady(entry):
            return False
        if match.entry.kept and match.digest is None:
            return False  # it is in no frame of the old one, and was found damaged
        return self._is_all_there or match.is_whole(self._old, self._journal)


class _Match(NamedTuple):
    """An entry of the old snapshot."""

    position: int
    entry: Entry
    digest: bytes | None

    def is_whole(self, old: ManifestFile, journal: Journal) -> bool:
        """Whether all of it is on the volume."""
        return all(frame in journal for frame in old.plan.frames_of(self.position, self.entry))

    def tags(self, old: ManifestFile, journal: Journal) -> list[str | None]:
        """The digests of its pieces, if it is large, where they are known."""
        if not is_large(self.entry):
            return []
        return [journal.tag(frame) for frame in old.plan.frames_of(self.position, self.entry)]


def prune(staging: int, manifest: ManifestFile, journal: Journal) -> None:
    """Remove from staging what ``manifest`` does not have, and what is not safely there.

    Args:
        staging: descriptor of the staging folder.
        manifest: what shall be there.
        journal: which of its frames are.

    Raises:
        OSError: as the filesystem says.
    """
    if os.geteuid():
        _reopen_folders(staging)
    walk = TreeWalk(staging, manifest.root, inside=False)
    unwanted = list(_unwanted(walk.entries(), manifest, journal))
    with DirStack(staging, create=True) as folders:
        for path in reversed(unwanted):
            folder, name = folders.parent(path)
            remove(folder, name)


def _reopen_folders(above: int) -> None:
    """Without privileges, what was closed for publication can neither be walked nor removed."""
    for name in os.listdir(above):
        info = os.stat(name, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode):
            continue
        if info.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(name, stat.S_IRWXU, dir_fd=above)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            _reopen_folders(fd)
        finally:
            os.close(fd)


def _paired(
    old: ManifestFile, digests: FileDigests, new: ManifestFile
) -> Iterator[tuple[int, Entry, _Match | None] | tuple[int, None, _Match]]:
    """Number and entry of all in the new snapshot, and what of the old one had its path.

    What the old one had at other paths comes between them, with nothing of the new.
    """
    known = (
        _Match(position, *each) for position, each in enumerate(zip(old, digests, strict=True))
    )
    before = next(known, None)
    for number, entry in enumerate(new):
        if before is not None and before.entry.path == entry.path:
            yield number, entry, before
            before = next(known, None)
            continue
        key = sort_key(entry.path)
        while before is not None and sort_key(before.entry.path) < key:
            yield number, None, before
            before = next(known, None)
        if before is not None and before.entry.path == entry.path:
            yield number, entry, before
            before = next(known, None)
        else:
            yield number, entry, None
    while before is not None:
        yield len(new.plan), None, before
        before = next(known, None)


def _unwanted(found: Iterator[Entry], manifest: ManifestFile, journal: Journal) -> Iterator[bytes]:
    wanted = enumerate(manifest)
    number, want = next(wanted)
    for entry in found:
        key = sort_key(entry.path)
        while sort_key(want.path) < key:
            following = next(wanted, None)
            if following is None:
                yield entry.path
                break
            number, want = following
        else:
            same_place = want.path == entry.path
            is_folder = entry.kind is Kind.DIRECTORY and want.kind is Kind.DIRECTORY
            frames = manifest.plan.frames_of(number, want)
            # What is held is written over piece by piece.
            is_safe = all(frame in journal for frame in frames) or any(map(journal.tag, frames))
            if not same_place or not (is_folder or (want.kind is Kind.FILE and is_safe)):
                yield entry.path


def drop_files(*paths: str) -> None:
    """Remove records of an earlier snapshot; missing ones are fine."""
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)
