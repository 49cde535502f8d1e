"""Compares a tree on the volume with what it should be: attributes, then digests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import opened
from shared.errors import ProtocolViolation, printable
from shared.frames.file_digests import hash_descriptor, split
from shared.frames.sha256sums import format_sum, parse_sum, read_line, read_sums, usual_sums
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Entry, Kind, parse_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from shared.frames.file_digests import FileDigests
    from shared.frames.manifest_file import ManifestFile


def wrong_sums(
    manifest: ManifestFile, digests: FileDigests, sums_path: str
) -> Iterator[tuple[int, Entry]]:
    """Yield number and entry of each file whose own digest is not the one that the agent read.

    Args:
        manifest: the entries.
        digests: ours, made of what was unpacked and, of large files, read back.
        sums_path: the agent's ``SHA256SUMS``.

    Raises:
        ProtocolViolation: the agent's list is not one line for each file, in order.
    """
    with open(sums_path, "rb") as file:
        for numbers, lines in manifest.pieces():
            mine = digests.block(numbers)
            wanted = usual_sums(lines, mine)
            if wanted is not None and _continues_with(wanted, file):
                continue
            entries = zip(numbers, map(parse_line, lines.splitlines()), split(mine), strict=True)
            yield from _wrong_lines(entries, file)
        if read_line(file):
            raise ProtocolViolation("SHA256SUMS has lines too many")


def _continues_with(lines: bytes, file: BinaryIO) -> bool:
    """Return whether ``lines`` come next in ``file``. If they do not, nothing of it is read."""
    position = file.tell()
    if file.read(len(lines)) == lines:
        return True
    file.seek(position)
    return False


def _wrong_lines(
    entries: Iterable[tuple[int, Entry, bytes | None]], file: BinaryIO
) -> Iterator[tuple[int, Entry]]:
    """Compare ``entries``, with their numbers and digests, to the next lines of ``file``."""
    for number, entry, mine in entries:
        if entry.kind is not Kind.FILE:
            continue
        line = read_line(file)
        if mine is not None and line == format_sum(mine, entry.path):
            continue
        digest, path = parse_sum(line.removesuffix(b"\n")) or (b"", b"")
        if path != entry.path:
            raise ProtocolViolation("SHA256SUMS lacks a file", path=entry.path)
        if digest != mine:
            yield number, entry


def changed_files(base: int, sums_path: str) -> Iterator[str]:
    """Read all files below ``base``; yield one line for each that differs from ``sums_path``."""
    with open(sums_path, "rb") as file, DirStack(base) as folders:
        for digest, path in read_sums(file):
            try:
                folder, name = folders.parent(path)
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                with opened(name, flags, dir_fd=folder) as fd:
                    is_same = hash_descriptor(fd) == digest
            except OSError as error:
                yield f"{printable(path)}: {os.strerror(error.errno or 0)}"
            else:
                if not is_same:
                    yield f"{printable(path)}: its content is not what was moved"
