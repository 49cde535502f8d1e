"""Compares a tree on the volume with what it should be: attributes, then digests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shared.dirstack import DirStack
from shared.errors import ProtocolViolation, printable
from shared.filedigests import hash_descriptor
from shared.manifest import Entry, Kind
from shared.memberpath import sort_key
from shared.sha256sums import read_sums
from shared.treewalk import TreeWalk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.ownership import Ownership
    from shared.filedigests import FileDigests
    from shared.manifestfile import ManifestFile

_OWNER = 0o700


def tree_differences(base: int, manifest: ManifestFile, ownership: Ownership) -> Iterator[str]:
    """One line for each entry that is missing, too many, or not as in ``manifest``.

    Args:
        base: descriptor of the folder that the tree is in.
        manifest: what the tree should be.
        ownership: whose it should be. Without privileges, folders may be more open for us.
    """
    walk = TreeWalk(base, manifest.root, must_read=False)
    yield from _merge(walk.entries(), iter(manifest), ownership)
    yield from (f"{path}: cannot be read" for path in walk.seen.unreadable)
    yield from (f"{path}: does not belong here" for path in walk.seen.skipped)


def wrong_sums(
    manifest: ManifestFile, digests: FileDigests, sums_path: str
) -> Iterator[tuple[int, Entry]]:
    """Number and entry of each file whose own digest is not the one that the agent read.

    Args:
        manifest: the entries.
        digests: ours, made of what was unpacked and, of large files, read back.
        sums_path: the agent's ``SHA256SUMS``.

    Raises:
        ProtocolViolation: the agent's list is not one line for each file, in order.
    """
    with open(sums_path, "rb") as file:
        theirs = read_sums(file)
        for number, (entry, mine) in enumerate(zip(manifest, digests, strict=True)):
            if entry.kind is not Kind.FILE:
                continue
            digest, path = next(theirs, (b"", b""))
            if path != entry.path:
                raise ProtocolViolation("SHA256SUMS lacks a file", path=entry.path)
            if digest != mine:
                yield number, entry
        if (left := next(theirs, None)) is not None:
            raise ProtocolViolation("SHA256SUMS has a file too many", path=left[1])


def changed_files(base: int, sums_path: str) -> Iterator[str]:
    """One line for each file below ``base`` that is not what ``sums_path`` says, read anew."""
    with open(sums_path, "rb") as file, DirStack(base) as folders:
        for digest, path in read_sums(file):
            try:
                folder, name = folders.parent(path)
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                try:
                    is_same = hash_descriptor(fd) == digest
                finally:
                    os.close(fd)
            except OSError as error:
                yield f"{printable(path)}: {os.strerror(error.errno or 0)}"
            else:
                if not is_same:
                    yield f"{printable(path)}: its content is not what was moved"


def _merge(found: Iterator[Entry], wanted: Iterator[Entry], ownership: Ownership) -> Iterator[str]:
    have, want = next(found, None), next(wanted, None)
    while have is not None or want is not None:
        if want is None or (have and sort_key(have.path) < sort_key(want.path)):
            yield f"{printable(have.path if have else b'')}: does not belong here"
            have = next(found, None)
        elif have is None or sort_key(want.path) < sort_key(have.path):
            yield f"{printable(want.path)}: is missing"
            want = next(wanted, None)
        else:
            if what := ", ".join(_compare(have, want, ownership)):
                yield f"{printable(want.path)}: {what}"
            have, want = next(found, None), next(wanted, None)


def _compare(have: Entry, want: Entry, ownership: Ownership) -> Iterator[str]:
    if have.kind is not want.kind:
        yield f"is a {have.kind.value}, not a {want.kind.value}"
        return
    if have.size != want.size:
        yield f"has {have.size} bytes, not {want.size}"
    if have.link != want.link:
        yield f"points to {printable(have.link)}, not to {printable(want.link)}"
    if have.mode not in _modes(want, ownership):
        yield f"has mode {have.mode:o}, not {want.mode:o}"
    if (have.uid, have.gid) != (owner := ownership.of(want)):
        yield f"belongs to {have.uid}:{have.gid}, not to {owner[0]}:{owner[1]}"
    if have.mtime_ns != want.mtime_ns:
        yield f"has the time {have.mtime_ns}, not {want.mtime_ns}"
    if have.xattrs != want.xattrs:
        yield "has other xattrs"


def _modes(want: Entry, ownership: Ownership) -> tuple[int, ...]:
    if want.kind is Kind.DIRECTORY and not ownership.privileged:
        return (want.mode, want.mode | _OWNER)
    return (want.mode,)
