"""From a frame's tar bytes in memory straight into files in staging."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import WHILE_ASSEMBLED, remove, reopened
from initpuller.volume.staging.attributes import (
    apply_attributes,
    differences,
    make_symlink,
    write_content,
)
from initpuller.volume.staging.blocks import SAME_RELEASE, Unpacked
from shared.digest import sha256, sha256_of_all
from shared.errors import FrameDamaged, storage_error, storage_errors
from shared.frames.pieces import piece_digests
from shared.frames.plan import Frame, Member, is_large, members
from shared.native import native
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind, parse_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initpuller.volume.fidelity import AttributePolicy
    from initpuller.volume.ownership import Ownership
    from shared.frames.file_digests import FileDigests
    from shared.tree.manifest import Entry

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_DIGESTS = "the digests beside staging"


@dataclass(frozen=True)
class Destination:
    """Where the frames of one snapshot are unpacked."""

    staging: int
    """Descriptor of the staging folder."""
    policy: AttributePolicy
    """The attributes that entries get."""
    digests: FileDigests
    """The digests of unpacked files are stored here."""


@dataclass(frozen=True)
class FetchedFrame:
    """A frame that has arrived, not yet verified."""

    frame: Frame
    lines: Sequence[bytes]
    """The manifest's lines of all entries that it spans."""
    tar: bytes
    """Its tar bytes, of its planned size."""
    tag: str
    """The hexadecimal digest of the digests of the pieces of files in it."""

    @property
    def entries(self) -> list[Entry]:
        """The entries that it spans, in order."""
        return list(map(parse_line, self.lines))


def unpack_frame(into: Destination, fetched: FetchedFrame) -> Unpacked:
    """Verify a frame, and write all of its entries but those in :attr:`Unpacked.late`.

    A small file that an interrupted run left is replaced, never written into.

    Raises:
        FrameDamaged: the pieces have other digests; nothing was written.
    """
    return _unpack_usual(into, fetched) or _unpack_any(into, fetched)


def _unpack_usual(into: Destination, fetched: FetchedFrame) -> Unpacked | None:
    """Return None if the accelerator is not there, or leaves the frame to Python."""
    owner, frame = into.policy.ownership, fetched.frame
    if native is None or not into.policy.is_exact:
        return None
    done = native.unpack(
        into.staging,
        b"\n".join(fetched.lines) + b"\n",
        frame.block,
        fetched.tar,
        bytes.fromhex(fetched.tag),
        (owner.fixed, owner.privileged),
    )
    if done is None:
        return None
    runs, late = done
    with storage_errors(_DIGESTS):
        into.digests.put_runs((frame.first + position, run) for position, run in runs)
    later = [(frame.first + position, parse_line(fetched.lines[position])) for position in late]
    return Unpacked(fetched.tag, later, [])


def _unpack_any(into: Destination, fetched: FetchedFrame) -> Unpacked:
    view, entries = memoryview(fetched.tar), fetched.entries
    inside = list(members(fetched.frame, entries))
    pieces = [view[each.content : each.content + each.length] for each in inside]
    sums = [
        sha256(piece) if each.entry.kind is Kind.FILE else None
        for each, piece in zip(inside, pieces, strict=True)
    ]
    digests = piece_digests(pieces[0]) if is_large(entries[0]) else filter(None, sums)
    if sha256_of_all(digests).hex() != fetched.tag:
        raise FrameDamaged(
            "a frame's files do not have the digest announced for them",
            hint=SAME_RELEASE,
        )
    with DirStack(into.staging, create=True) as folders:
        unpacking = _Unpacking(folders, into.policy)
        for member, piece in zip(inside, pieces, strict=True):
            try:
                unpacking.add(member, piece)
            except OSError as error:
                raise storage_error(error, member.entry.path) from error
    if not is_large(entries[0]):
        with storage_errors(_DIGESTS):
            into.digests.put((each.number, mine) for each, mine in zip(inside, sums, strict=True))
    return Unpacked(fetched.tag, unpacking.late(), unpacking.differences)


class _Unpacking:
    def __init__(self, folders: DirStack, policy: AttributePolicy) -> None:
        self.differences: list[str] = []
        self._folders = folders
        self._ownership = policy.ownership
        self._kept = policy.fidelity.kept
        self._within: list[Member] = []
        """The folders of this frame that contain the last member."""
        self._late: list[Member] = []
        self._changes_late: set[bytes] = set()
        """Folders that will get a hard link."""

    def add(self, member: Member, piece: memoryview) -> None:
        entry = self._kept(member.entry)
        above = entry.path.rpartition(b"/")[0]
        while self._within and self._within[-1].entry.path != above:
            self._leave(self._within.pop())
        if entry.kind is Kind.DIRECTORY:
            self._folders.folder(entry.path)
            self._within.append(member)
        elif entry.kind is Kind.SYMLINK:
            made = make_symlink(*self._folders.parent(entry.path), entry, self._ownership)
            self.differences += differences(entry, made, self._ownership, entry.mode)
        elif entry.kind is Kind.HARDLINK:
            self._late.append(member)
            self._changes_late.add(above)
        elif not is_large(entry):
            self.differences += _write_file(self._folders, entry, piece, self._ownership)
        else:
            # Blocks come in any order, so each may create the file.
            with reopened(*self._folders.parent(entry.path), _CREATE) as fd:
                os.ftruncate(fd, entry.size)
                write_content(fd, piece, member.offset, sparse=entry.data is not None)
            if member.offset == 0:
                self._late.append(member)

    def late(self) -> list[tuple[int, Entry]]:
        """Return :attr:`Unpacked.late`: also the folders that the next frame may continue."""
        return sorted((each.number, each.entry) for each in self._late + self._within)

    def _leave(self, member: Member) -> None:
        """Finish a folder that gets no more entries, unless a hard link comes into it later."""
        entry = self._kept(member.entry)
        if entry.path in self._changes_late:
            self._late.append(member)
            return
        fd, mode = self._folders.folder(entry.path), self._ownership.mode_of(entry)
        self.differences += apply_attributes(fd, entry, self._ownership, mode)


def _write_file(
    folders: DirStack, entry: Entry, content: memoryview, ownership: Ownership
) -> list[str]:
    folder, name = folders.parent(entry.path)
    try:
        fd = os.open(name, _CREATE | os.O_EXCL, WHILE_ASSEMBLED, dir_fd=folder)
    except FileExistsError:
        remove(folder, name)
        fd = os.open(name, _CREATE | os.O_EXCL, WHILE_ASSEMBLED, dir_fd=folder)
    try:
        if entry.data is not None:
            os.ftruncate(fd, entry.size)
        write_content(fd, content, 0, sparse=entry.data is not None)
        return apply_attributes(fd, entry, ownership, entry.mode)
    finally:
        os.close(fd)
