"""The way back to a pull under way: from a publication that is out of date, or a rehearsal."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from initpuller.volume.fidelity import EXACT
from initpuller.volume.filesystem import opened
from initpuller.volume.publish.publish import open_top
from initpuller.volume.records.receipt import load_receipt
from initpuller.volume.records.record_file import drop_files
from initpuller.volume.records.transitions import taken_back, unpublished
from initpuller.volume.reuse.recorded import open_records, read_listing
from shared.durable import fsync_folder, rename_noreplace
from shared.errors import storage_errors
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind
from shared.tree.racy import is_of_database

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.volume.records.receipt import Receipt
    from initpuller.volume.records.state import State
    from shared.tree.manifest import Entry


def unpublish(record: PullRecord) -> None:
    """Have what was verified count as transferred only, because the source may have changed since.

    A library that was renamed already returns to staging, and what was set aside for it gets its
    name back. The record is saved last: after a kill before that, the next run does this again.
    """
    layout, receipt = record.layout, record.current.receipt
    with storage_errors(layout.folder):
        if receipt is not None:
            _return_to_staging(layout, receipt)
            _restore_displaced(layout, receipt)
        fsync_folder(layout.folder)
    record.apply(unpublished)


def _return_to_staging(layout: Layout, receipt: Receipt) -> None:
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


def take_back(record: PullRecord, *, rehearse: bool) -> None:
    """Return a rehearsal to staging if :func:`is_to_be_taken_back`.

    A Plex that was tried on it has changed it: what looks changed is journalled as not there. The
    receipt is removed last: after a kill before that, the next run does this again.
    """
    planned = _planned(record)
    if planned is None or not is_to_be_taken_back(record, rehearse=rehearse):
        return
    layout, state = record.layout, record.state
    with storage_errors(layout.folder):
        _return_to_staging(layout, planned)
        drop_files(layout.migrated, layout.trash)
        if state is not None:
            _forget_changed(layout, state)
            record.apply(taken_back)
        drop_files(layout.receipt)
        fsync_folder(layout.folder)


def is_to_be_taken_back(record: PullRecord, *, rehearse: bool) -> bool:
    """Return whether a rehearsal is there, or half taken back, that this run does not want there.

    A run that wants a rehearsal (``rehearse``) only finishes what was begun.
    """
    layout, planned = record.layout, _planned(record)
    if planned is None or not planned.rehearsal:
        return False
    name = planned.library.name
    is_published = os.path.lexists(layout.library(name))
    if rehearse and (is_published or not os.path.lexists(layout.receipt)):
        return False
    return is_published or os.path.isdir(layout.staged(name))


def _planned(record: PullRecord) -> Receipt | None:
    state = record.state
    return load_receipt(record.layout) or (state.receipt if state is not None else None)


def _forget_changed(layout: Layout, state: State) -> None:
    listing = read_listing(layout, state.snapshot)
    if listing is None:
        return  # then nothing is reused
    kept, plan = (state.fidelity or EXACT).kept, listing.manifest.plan
    with (
        opened(layout.staging) as staging,
        DirStack(staging) as folders,
        open_records(layout, listing) as records,
    ):
        changed = [
            (number, entry)
            for number, entry in enumerate(listing.manifest)
            if entry.kind is Kind.FILE and not _is_unchanged(folders, kept(entry))
        ]
        records.digests.put([(number, None) for number, _ in changed])
        records.journal.redo(sorted({frame for each in changed for frame in plan.frames_of(*each)}))


def _is_unchanged(folders: DirStack, entry: Entry) -> bool:
    if is_of_database(entry):
        return False
    try:
        folder, name = folders.parent(entry.path)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    seen = stat.S_ISREG(info.st_mode), info.st_size, info.st_mtime_ns
    return seen == (True, entry.size, entry.mtime_ns)
