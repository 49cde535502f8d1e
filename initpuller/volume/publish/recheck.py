"""A library that an earlier process verified, compared again: the volume may have changed since."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import structlog
from msgspec.structs import replace

from initpuller.volume.decision import OnExisting
from initpuller.volume.fidelity import EXACT
from initpuller.volume.filesystem import (
    FOLDER,
    NO_FILE,
    hash_file,
    opened,
    reopened,
)
from initpuller.volume.ownership import choose_ownership
from initpuller.volume.publish.unpublish import is_placed, unpublish
from initpuller.volume.records.transitions import distrust
from initpuller.volume.staging.finishing import Extent, close_folders, finish_attributes
from shared.durable import syncfs
from shared.errors import (
    IntegrityError,
    TargetConflict,
    printable,
    storage_error,
    storage_errors,
)
from shared.frames.file_digests import hash_descriptor
from shared.frames.manifest_file import read_manifest
from shared.frames.sha256sums import read_sums
from shared.presence import is_folder, is_there, mode_at
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.records.pull_record import PullRecord
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry

_log = structlog.get_logger("puller")

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def damage(record: PullRecord, amended: str) -> list[str]:
    """Return a line for each entry that is not as the planned receipt says.

    The library is in staging, where its folders get their attributes again; or it has its final
    name, and is not changed.

    Args:
        record: of a library that is verified.
        amended: the file that differs from the manifest in size, because the user wants it so.

    Raises:
        StorageError: something cannot be read. It may be undamaged.
    """
    layout, receipt = record.layout, record.planned
    snapshot, root = receipt.snapshot, os.fsencode(receipt.library.name)
    with storage_errors(layout.folder):
        manifest_path = _found(layout.manifest(snapshot), layout.receipt_manifest)
        sums = _found(layout.sums(snapshot), layout.receipt_sums)
        wanted = {manifest_path: receipt.manifest_file_sha256, sums: receipt.sums_sha256}
        if receipt.omitted is not None:
            omitted = _found(layout.omitted(snapshot), layout.receipt_omitted)
            wanted[omitted] = receipt.omitted.sha256
        for path, digest in wanted.items():
            if not stat.S_ISREG(mode_at(path)) or hash_file(path).hex() != digest:
                return [f"{path}: not the list that was verified"]
        try:
            manifest = read_manifest(manifest_path, snapshot, root, record.current.snapshot.kind)
        except IntegrityError as error:
            return [f"{manifest_path}: {error.what}"]
        ownership = choose_ownership(record.current.owner)
        kept = (record.current.fidelity or EXACT).kept

        def compare(base: int, extent: Extent) -> list[str]:
            entries = (_as_amended(base, kept(each), amended) for each in reversed(manifest))
            changed = list(_changed_files(base, sums))
            return changed or finish_attributes(base, entries, ownership, extent)

        if not is_folder(layout.staged(receipt.library.name)):
            with opened(layout.target, FOLDER) as base:
                return compare(base, Extent.PLACED)
        with opened(layout.staging, FOLDER) as base:
            if not ownership.privileged:
                _open_folders(base, manifest)
            found = compare(base, Extent.ALL)
            if not ownership.privileged:
                close_folders(base, manifest)
            syncfs(base)  # what was set is durable before a receipt says so
            return found


def withdraw_damaged(record: PullRecord, on_existing: OnExisting) -> None:
    """Have a damaged library be transferred again.

    Only one in staging is repaired. One that has its final name may be another, or in use: it stays
    there until the next publication sets it aside.

    Raises:
        TargetConflict: it has its final name, and is not to be set aside.
    """
    layout, name = record.layout, record.planned.library.name
    is_other = is_placed(layout, name)
    if is_other and on_existing is not OnExisting.SET_ASIDE:
        raise TargetConflict(
            "the library was published, but is not what was verified any more",
            path=layout.library(name),
            hint="Somebody has changed it, or put another in its place. Move it away, or give"
            " --on-existing set-aside, and run again: the library is then transferred again.",
        )
    unpublish(record, is_other=is_other)
    record.apply(distrust)


def _found(under_way: str, placed: str) -> str:
    """Return where a list is: publication gives it another name before it renames the library."""
    return under_way if is_there(under_way) else placed


def _changed_files(base: int, sums: str) -> Iterator[str]:
    """Read all files below ``base``; yield a line for each whose digest is not that in ``sums``."""
    with open(sums, "rb") as file, DirStack(base) as folders:
        for digest, path in read_sums(file):
            try:
                with _readable(*folders.parent(path)) as fd:
                    is_same = hash_descriptor(fd) == digest
            except OSError as error:
                if error.errno not in NO_FILE:
                    raise storage_error(error, path) from error
                yield f"{printable(path)}: is missing, or no file"
            else:
                if not is_same:
                    yield f"{printable(path)}: wrong digest"


def _open_folders(staging: int, manifest: ManifestFile) -> None:
    """Open the folders of a finished tree for their owner, who has no other access to them."""
    with DirStack(staging, create=True) as folders:
        for entry in manifest:
            if entry.kind is Kind.DIRECTORY:
                folders.folder(entry.path)


@contextmanager
def _readable(folder: int, name: bytes) -> Iterator[int]:
    """Open a file, even if its final mode does not let its owner read it."""
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode & 0o7777
    with reopened(folder, name, _READ) as fd:
        try:
            yield fd
        finally:
            if os.fstat(fd).st_mode & 0o7777 != mode:
                os.fchmod(fd, mode)


def _as_amended(base: int, entry: Entry, amended: str) -> Entry:
    """Return the entry of the amended file with the size that it has; any other unchanged."""
    if not amended or entry.path != os.fsencode(amended):
        return entry
    with suppress(FileNotFoundError, NotADirectoryError):  # it is reported as missing
        size = os.stat(entry.path, dir_fd=base, follow_symlinks=False).st_size
        return replace(entry, size=size)
    return entry
