"""When the library changed between two runs: what of the earlier snapshot can stay in staging.

An entry can stay if the new scan saw it exactly as the old one did (size, times, inode and all)
and every frame it lay in is journalled; a frame need not be fetched if all its files can stay.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from initpuller.volume.names import remove
from shared.dirstack import DirStack
from shared.errors import SnapshotGone
from shared.frameplan import is_large
from shared.manifest import Kind
from shared.memberpath import sort_key
from shared.treewalk import TreeWalk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
) -> Carried:
    """What can stay, and what may; copies the digests of files that can.

    Args:
        old: what staging has by the journal.
        old_journal: which frames of that.
        old_digests: of the files in it.
        new: what staging shall have.
        new_digests: get those of the files that stay.
        is_steady: whether a file that both saw alike has not changed in between.

    Raises:
        SnapshotGone: the new snapshot is a delta that keeps what is not on the volume.
        OSError: as the filesystem says.
    """
    carried, fetched = Carried(), bytearray(len(new.plan))
    tags: dict[int, str | None] = {}
    digests: list[tuple[int, bytes | None]] = []
    for number, entry, match in _matched(old, old_digests, new):
        stays = match is not None and match.is_whole(old, old_journal) and match.is_same(entry)
        stays = stays and is_steady(entry)
        if match is not None and stays:
            digests.append((number, match.digest))
            if len(digests) >= _BATCH:
                new_digests.put(digests)
                digests.clear()
        if entry.kept and not stays:
            raise SnapshotGone("the volume has not all that the delta keeps")
        frames = new.plan.frames_of(number, entry)
        before = match.tags(old, old_journal) if match is not None and is_large(entry) else []
        if stays:
            tags.update(zip(frames, before, strict=False))
            continue
        for frame in frames:
            fetched[frame] = 1
        if entry.data is None and match is not None and match.entry.data is None:
            pairs = zip(frames, before, strict=False)
            carried.held += [(frame, tag) for frame, tag in pairs if tag is not None]
    new_digests.put(digests)
    carried.kept = [(frame, tags.get(frame)) for frame, is_out in enumerate(fetched) if not is_out]
    return carried


@dataclass(frozen=True)
class _Match:
    """A file of the old snapshot with the path of one of the new."""

    position: int
    entry: Entry
    digest: bytes | None

    def is_whole(self, old: ManifestFile, journal: Journal) -> bool:
        """Whether all of it is on the volume."""
        return all(frame in journal for frame in old.plan.frames_of(self.position, self.entry))

    def is_same(self, entry: Entry) -> bool:
        """Whether it is as in the new snapshot."""
        return self.entry.is_as_in(entry)

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


def _matched(
    old: ManifestFile, digests: FileDigests, new: ManifestFile
) -> Iterator[tuple[int, Entry, _Match | None]]:
    """Number and entry of each file of the new snapshot, with that of the old one at its path."""
    known = enumerate(zip(old, digests, strict=True))
    position, (before, digest) = next(known)
    for number, entry in enumerate(new):
        if entry.kind is not Kind.FILE:
            continue
        key = sort_key(entry.path)
        while sort_key(before.path) < key and (following := next(known, None)) is not None:
            position, (before, digest) = following
        is_there = before.path == entry.path and before.kind is Kind.FILE
        yield number, entry, _Match(position, before, digest) if is_there else None


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
