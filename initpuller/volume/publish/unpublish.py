"""The way back to a pull under way: from a publication that is out of date, or a rehearsal."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from initpuller.volume.decision import OnExisting
from initpuller.volume.fidelity import EXACT
from initpuller.volume.filesystem import opened
from initpuller.volume.foreign_library import is_skeleton
from initpuller.volume.publish.publish import open_top
from initpuller.volume.records.receipt import load_receipt
from initpuller.volume.records.record_file import drop_files
from initpuller.volume.records.transitions import taken_back, unpublished
from initpuller.volume.reuse.recorded import DAMAGED, open_records, read_listing
from shared.durable import fsync_folder, rename_noreplace
from shared.errors import IntegrityError, TargetConflict, storage_errors
from shared.frames.manifest_file import read_manifest
from shared.presence import is_folder, is_there
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind
from shared.tree.racy import is_of_database

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.volume.records.receipt import Receipt
    from initpuller.volume.records.state import State
    from shared.tree.manifest import Entry


def unpublish(record: PullRecord, *, is_other: bool = False) -> None:
    """Have what was verified count as transferred only, because the source may have changed since.

    A library that was renamed already returns to staging, and what was set aside for it gets its
    name back. The record is saved last: after a kill before that, the next run does this again.

    Args:
        record: of a library that is verified.
        is_other: another library has the final name. It stays where it is.
    """
    layout, receipt = record.layout, record.current.receipt
    with storage_errors(layout.folder):
        if receipt is not None:
            if not is_other:
                _return_to_staging(layout, receipt.library.name)
            _return_lists(layout, receipt)
            _restore_displaced(layout, receipt)
        fsync_folder(layout.folder)
    record.apply(unpublished)


def is_placed(layout: Layout, name: str) -> bool:
    """Return whether something has the library's final name, and nothing is in staging."""
    with storage_errors(layout.target):
        return not is_folder(layout.staged(name)) and is_there(layout.library(name))


def _return_to_staging(layout: Layout, name: str) -> None:
    """Rename the library to its place in staging. The caller knows that it is the pull's own."""
    if is_placed(layout, name):
        os.makedirs(layout.staging, mode=0o700, exist_ok=True)
        open_top(layout.library(name))
        rename_noreplace(layout.library(name), layout.staged(name))
        fsync_folder(layout.target)
        fsync_folder(layout.staging)


def _return_lists(layout: Layout, receipt: Receipt) -> None:
    """Rename the manifest to that of a pull under way, and remove the other lists."""
    with suppress(FileNotFoundError):  # it is not placed yet, or is back already
        os.rename(layout.receipt_manifest, layout.manifest(receipt.snapshot))
    drop_files(layout.receipt_sums, layout.receipt_omitted)


def _restore_displaced(layout: Layout, receipt: Receipt) -> None:
    final = layout.library(receipt.library.name)
    aside = layout.library(receipt.set_aside) if receipt.set_aside else final
    if is_there(aside) and not is_there(final):
        rename_noreplace(aside, final)
        fsync_folder(layout.target)


def take_back(record: PullRecord, on_existing: OnExisting, *, rehearse: bool) -> None:
    """Return a rehearsal to staging if :func:`is_to_be_taken_back`.

    A Plex that was tried on it has changed it: what looks changed is journalled as not there. The
    receipt is removed last: after a kill before that, the next run does this again. If another
    library has its name, that one stays there, and nothing is reused.

    Raises:
        TargetConflict: another library has its name, and is not to be set aside.
    """
    planned = _planned(record)
    if planned is None or not is_to_be_taken_back(record, rehearse=rehearse):
        return
    layout, state, name = record.layout, record.state, planned.library.name
    with storage_errors(layout.folder):
        is_other = is_placed(layout, name) and _is_another(record, planned)
        if is_other and on_existing is not OnExisting.SET_ASIDE:
            raise TargetConflict(
                "the library is not the rehearsal that was published: no file of that is in it",
                path=layout.library(name),
                hint="Give --on-existing set-aside, and run again. Or move it away, and remove"
                f" {layout.receipt}.",
            )
        if is_other:
            os.makedirs(layout.staging, mode=0o700, exist_ok=True)
        else:
            _return_to_staging(layout, name)
        _return_lists(layout, planned)
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
    with storage_errors(layout.target):
        is_staged = is_folder(layout.staged(name))
        # Beside a copy in staging, Kubernetes may have made folders of that name.
        is_published = is_placed(layout, name)
        if rehearse and (is_published or not is_there(layout.receipt)):
            return False
        return is_published or is_staged


def _planned(record: PullRecord) -> Receipt | None:
    state = record.state
    return load_receipt(record.layout) or (state.receipt if state is not None else None)


def _is_another(record: PullRecord, planned: Receipt) -> bool:
    """Return whether the library with the final name is another than the rehearsal.

    A Plex that was tried on the rehearsal has changed some of its files. Another library has none
    of them with the same size and time. Without a manifest that can be read, nobody knows, and it
    counts as another. Folders without a file are nobody's.
    """
    layout, state = record.layout, record.state
    if is_skeleton(layout.library(planned.library.name)):
        return False
    under_way = layout.manifest(planned.snapshot)
    path = under_way if is_there(under_way) else layout.receipt_manifest
    root = os.fsencode(planned.library.name)
    try:
        manifest = read_manifest(path, planned.snapshot, root, "rehearsal")
    except (FileNotFoundError, IntegrityError):
        return True
    kept = ((state.fidelity if state is not None else None) or EXACT).kept
    files = (kept(each) for each in manifest if each.kind is Kind.FILE)
    with opened(layout.target) as target, DirStack(target) as folders:
        return not any(_is_as_moved(folders, each) for each in files)


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
        records.digests.put([(number, DAMAGED) for number, _ in changed])
        records.journal.redo(sorted({frame for each in changed for frame in plan.frames_of(*each)}))


def _is_unchanged(folders: DirStack, entry: Entry) -> bool:
    return not is_of_database(entry) and _is_as_moved(folders, entry)


def _is_as_moved(folders: DirStack, entry: Entry) -> bool:
    try:
        folder, name = folders.parent(entry.path)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    seen = stat.S_ISREG(info.st_mode), info.st_size, info.st_mtime_ns
    return seen == (True, entry.size, entry.mtime_ns)
