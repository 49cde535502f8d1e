"""Compares a tree on the volume with what it should be: attributes, then digests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import opened
from shared.checks import size
from shared.errors import ProtocolViolation, printable
from shared.frames.file_digests import hash_descriptor
from shared.frames.sha256sums import format_sum, parse_sum, read_line, read_sums
from shared.plex.library import DATABASE_FOLDER, DATABASES, server_folder
from shared.plex.sqlite_check import check_database
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.staging.staging import Staging
    from shared.frames.file_digests import FileDigests
    from shared.frames.manifest_file import ManifestFile
    from shared.plex.sqlite_check import DatabaseCheck


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
        for number, (entry, mine) in enumerate(zip(manifest, digests, strict=True)):
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
        if read_line(file):
            raise ProtocolViolation("SHA256SUMS has lines too many")


def check_databases(staging: Staging, depth: DatabaseCheck) -> tuple[list[str], list[str]]:
    """Check Plex's databases in staging, if there are any.

    Returns:
        Their faults, and the unchecked ones with the reason; a line each.
    """
    server = server_folder(staging.state.snapshot.library.name)
    if server is None:
        return [], []
    damaged, unchecked = [], []
    for name in DATABASES:
        path = staging.regular_file(os.path.join(server, DATABASE_FOLDER, name))
        if path is not None:
            found = check_database(path, depth)
            damaged += [f"{name}: {line}" for line in found.damage]
            if found.not_checked:
                length = size(os.path.getsize(path))
                unchecked.append(f"{name} ({length}), because {found.not_checked}")
    return damaged, unchecked


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
