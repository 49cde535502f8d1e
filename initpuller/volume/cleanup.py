"""What a pull leaves beside the library, and when it goes."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from initpuller.volume.records.layout import RECORD_PREFIXES
from initpuller.volume.records.record_file import drop_files
from shared.durable import fsync_folder
from shared.errors import TargetConflict
from shared.timestamps import compact_timestamp

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.receipt import Receipt
    from initpuller.volume.records.state import State
    from shared.wire.protocol import Snapshot


def drop_work(layout: Layout) -> None:
    """Forget a pull whose staging is gone. The state goes last: until then this is done again.

    Raises:
        OSError: as the filesystem says.
    """
    drop_records(layout)
    fsync_folder(layout.folder)
    drop_files(layout.state)


def drop_records(layout: Layout, kept: str = "") -> None:
    """Remove what there is of any snapshot, half-written and taken over ones too.

    Args:
        layout: the volume.
        kept: the name of a snapshot whose records stay.

    Raises:
        OSError: as the filesystem says.
    """
    with os.scandir(layout.folder) as found:
        records = [each for each in found if each.name.startswith(RECORD_PREFIXES)]
    drop_files(*(each.path for each in records if not kept or not each.name.endswith(kept)))


def refuse_foreign(layout: Layout, state: State, snapshot: Snapshot, *, told: bool) -> bool:
    """Whether staging is of another library and has now been set aside, since we were told to.

    Raises:
        TargetConflict: it is of another library, and we were not told.
        OSError: as the filesystem says.
    """
    theirs, ours = state.snapshot.library, snapshot.library
    if (theirs.id, theirs.name) == (ours.id, ours.name):
        return False
    if not told:
        raise TargetConflict(
            f"staging holds another library, {theirs.host}:{theirs.path}, "
            f"not {ours.host}:{ours.path}",
            path=layout.staging,
            hint="Use another volume; or, to begin anew, remove this folder or give "
            "--on-existing set-aside.",
        )
    aside = f"{layout.staging}.set-aside-{compact_timestamp()}"
    if os.path.isdir(layout.staging):
        os.rename(layout.staging, aside)
    drop_work(layout)
    return True


def remove_leftovers(layout: Layout, receipt: Receipt) -> None:
    """After the receipt: what only the pull itself needed. From a rehearsal a pull goes on.

    Raises:
        OSError: as the filesystem says.
    """
    shutil.rmtree(layout.staging, ignore_errors=True)
    _hand_over(layout, receipt.library.name)
    if receipt.rehearsal:
        drop_records(layout, receipt.snapshot)
    else:
        drop_work(layout)


def _hand_over(layout: Layout, name: str) -> None:
    """Records belong to whom the library belongs: a sidecar that runs as Plex does adds to them."""
    owner = os.lstat(layout.library(name))
    with os.scandir(layout.folder) as found:
        files = [each.path for each in found if each.is_file(follow_symlinks=False)]
    for path in (*files, layout.folder):
        if os.lstat(path).st_uid != owner.st_uid:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
