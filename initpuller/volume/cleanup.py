"""Removal of the files that a pull leaves beside the library."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import set_aside_path
from initpuller.volume.records.layout import RECORD_PREFIXES
from initpuller.volume.records.record_file import drop_files
from shared.durable import fsync_folder
from shared.errors import TargetConflict, storage_errors
from shared.presence import is_folder

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.volume.records.receipt import Receipt
    from shared.wire.protocol import Snapshot


def drop_work(record: PullRecord) -> None:
    """Forget a pull whose staging is gone.

    Its record is removed last: after a kill before that, the next run does this again.
    """
    drop_records(record.layout)
    fsync_folder(record.layout.folder)
    record.drop()


def drop_records(layout: Layout, kept: str = "") -> None:
    """Remove the files of every snapshot but the one named ``kept``, also half-written ones."""
    with os.scandir(layout.folder) as found:
        records = [each for each in found if each.name.startswith(RECORD_PREFIXES)]
    drop_files(*(each.path for each in records if not kept or not each.name.endswith(kept)))


def refuse_foreign(record: PullRecord, snapshot: Snapshot, *, sets_aside: bool) -> None:
    """Refuse a staging folder of another library, or set it aside and drop its record.

    Raises:
        TargetConflict: staging is of another library, and is not to be set aside.
    """
    layout, state = record.layout, record.state
    if state is None:
        return
    theirs, ours = state.snapshot.library, snapshot.library
    if (theirs.id, theirs.name) == (ours.id, ours.name):
        return
    if not sets_aside:
        raise TargetConflict(
            f"staging holds another library, {theirs.host}:{theirs.path}, "
            f"not {ours.host}:{ours.path}",
            path=layout.staging,
            hint="Use another volume. To start again, remove this folder or add "
            "--on-existing set-aside.",
        )
    with storage_errors(layout.folder):
        if is_folder(layout.staging):
            os.rename(layout.staging, set_aside_path(layout.staging))
        drop_work(record)


def remove_leftovers(record: PullRecord, receipt: Receipt) -> None:
    """Remove what only the pull itself needed, once the receipt is written.

    The records of a rehearsal stay, because a later pull resumes from them.
    """
    layout = record.layout
    shutil.rmtree(layout.staging, ignore_errors=True)
    _hand_over(layout, receipt.library.name)
    if receipt.rehearsal:
        drop_records(layout, receipt.snapshot)
    else:
        drop_work(record)


def _hand_over(layout: Layout, name: str) -> None:
    """Give the records the library's owner: a sidecar that runs as Plex does adds to them."""
    owner = os.lstat(layout.library(name))
    with os.scandir(layout.folder) as found:
        files = [each.path for each in found if each.is_file(follow_symlinks=False)]
    for path in (*files, layout.folder):
        if os.lstat(path).st_uid != owner.st_uid:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
