"""A library that an earlier process verified, read again: the volume may have changed since."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import FOLDER, hash_file, opened
from initpuller.volume.publish.verify import changed_files
from shared.errors import storage_errors

if TYPE_CHECKING:
    from initpuller.volume.records.pull_record import PullRecord


def damage(record: PullRecord) -> list[str]:
    """Return a line for each file that is not what the planned receipt says, or cannot be read.

    The library is in staging, or has its final name already.

    Raises:
        StorageError: the volume cannot be read.
    """
    layout, receipt = record.layout, record.planned
    staged = layout.staged(receipt.library.name)
    with storage_errors(layout.folder):
        snapshot = receipt.snapshot
        manifest = _found(layout.manifest(snapshot), layout.receipt_manifest)
        sums = _found(layout.sums(snapshot), layout.receipt_sums)
        wanted = {manifest: receipt.manifest_file_sha256, sums: receipt.sums_sha256}
        for path, digest in wanted.items():
            if not os.path.isfile(path) or hash_file(path).hex() != digest:
                return [f"{path}: not the list that was verified"]
        with opened(layout.staging if os.path.isdir(staged) else layout.target, FOLDER) as base:
            return list(changed_files(base, sums))


def _found(under_way: str, placed: str) -> str:
    """Return where a list is: publication gives it another name before it renames the library."""
    return under_way if os.path.lexists(under_way) else placed
