"""The way back from a publication that is out of date to a pull under way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.publish.publish import open_top
from initpuller.volume.records.record_file import drop_files
from initpuller.volume.records.transitions import unpublished
from shared.durable import fsync_folder, rename_noreplace
from shared.errors import storage_errors

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.volume.records.receipt import Receipt


def unpublish(record: PullRecord) -> None:
    """Have what was verified count as transferred only, because the source may have changed since.

    A library that was renamed already returns to staging, and what was set aside for it gets its
    name back. The record is saved last: after a kill before that, the next run does this again.

    Args:
        record: of the volume, which says ``committing`` or ``publishing``.
    """
    layout, receipt = record.layout, record.current.receipt
    with storage_errors(layout.folder):
        if receipt is not None:
            return_to_staging(layout, receipt)
            _restore_displaced(layout, receipt)
        fsync_folder(layout.folder)
    record.apply(unpublished)


def return_to_staging(layout: Layout, receipt: Receipt) -> None:
    """Rename the library to its place in staging, and its manifest to that of a pull under way."""
    final, staged = layout.library(receipt.library.name), layout.staged(receipt.library.name)
    if not os.path.isdir(staged) and os.path.lexists(final):
        os.makedirs(layout.staging, mode=0o700, exist_ok=True)
        open_top(final)
        rename_noreplace(final, staged)
        fsync_folder(layout.target)
        fsync_folder(layout.staging)
    if os.path.exists(layout.receipt_manifest):
        os.rename(layout.receipt_manifest, layout.manifest(receipt.snapshot))
    drop_files(layout.receipt_sums, layout.receipt_omitted)


def _restore_displaced(layout: Layout, receipt: Receipt) -> None:
    final = layout.library(receipt.library.name)
    aside = layout.library(receipt.set_aside) if receipt.set_aside else final
    if os.path.lexists(aside) and not os.path.lexists(final):
        rename_noreplace(aside, final)
        fsync_folder(layout.target)
