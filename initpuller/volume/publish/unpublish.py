"""From publication back to a pull under way: what is about to be published is out of date."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.publish.publish import open_top
from initpuller.volume.records.record_file import drop_files
from initpuller.volume.records.state import save_state
from shared.durable import fsync_folder, rename_noreplace
from shared.errors import storage_error

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.receipt import Receipt
    from initpuller.volume.records.state import State


def unpublish(layout: Layout, state: State) -> None:
    """Have what was verified count as brought, and not as the source any more.

    A library that was renamed already goes back to staging, and what was set aside for it gets its
    name back. The state is saved last: until then all of this is done again.

    Args:
        layout: the volume.
        state: what it says: ``committing`` or ``publishing``.

    Raises:
        StorageError: as the filesystem says.
    """
    try:
        if state.receipt is not None:
            return_to_staging(layout, state.receipt)
            _restore_displaced(layout, state.receipt)
        fsync_folder(layout.folder)
    except OSError as error:
        raise storage_error(error, layout.folder) from error
    state.phase, state.receipt = "transferring", None
    save_state(layout, state)


def return_to_staging(layout: Layout, receipt: Receipt) -> None:
    """Rename the library to its place in staging, and its manifest to that of a pull under way.

    Raises:
        OSError: as the filesystem says.
    """
    final, staged = layout.library(receipt.library.name), layout.staged(receipt.library.name)
    if not os.path.isdir(staged) and os.path.lexists(final):
        os.makedirs(layout.staging, mode=0o700, exist_ok=True)
        open_top(final)
        rename_noreplace(final, staged)
        fsync_folder(layout.target)
        fsync_folder(layout.staging)
    if os.path.exists(layout.receipt_manifest):
        os.rename(layout.receipt_manifest, layout.manifest(receipt.snapshot))
    drop_files(layout.receipt_sums)


def _restore_displaced(layout: Layout, receipt: Receipt) -> None:
    final = layout.library(receipt.library.name)
    aside = layout.library(receipt.set_aside) if receipt.set_aside else final
    if os.path.lexists(aside) and not os.path.lexists(final):
        rename_noreplace(aside, final)
        fsync_folder(layout.target)
