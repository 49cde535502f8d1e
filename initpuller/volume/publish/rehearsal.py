"""The way back from a rehearsal to a pull under way, which resumes from it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from initpuller.volume.fidelity import EXACT
from initpuller.volume.publish.unpublish import return_to_staging
from initpuller.volume.records.journal import Journal
from initpuller.volume.records.receipt import load_receipt
from initpuller.volume.records.record_file import drop_files
from initpuller.volume.records.transitions import taken_back
from shared.durable import fsync_folder
from shared.errors import storage_error
from shared.frames.file_digests import FileDigests
from shared.frames.manifest_file import read_manifest
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind
from shared.tree.racy import is_of_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.fidelity import Fidelity
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.volume.records.state import State
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry


def take_back(record: PullRecord, *, rehearse: bool) -> None:
    """Return a rehearsal to staging if it was published, or is about to be.

    A Plex that was tried on it has changed it: what looks changed is journalled as not there. The
    receipt is removed last: after a kill before that, the next run does this again.

    Args:
        record: of the volume.
        rehearse: the user wants a rehearsal: then this is only done where it was begun.

    Raises:
        StorageError: a record cannot be read, or the volume does not take it.
    """
    if not is_to_be_taken_back(record, rehearse=rehearse):
        return
    layout, state = record.layout, record.state
    receipt = load_receipt(layout)
    planned = receipt or (state.receipt if state is not None else None)
    if planned is None:
        return
    try:
        return_to_staging(layout, planned)
        drop_files(layout.migrated, layout.trash)
        if state is not None:
            _forget_changed(layout, state)
            record.apply(taken_back)
        drop_files(layout.receipt)
        fsync_folder(layout.folder)
    except OSError as error:
        raise storage_error(error, layout.folder) from error


def is_to_be_taken_back(record: PullRecord, *, rehearse: bool) -> bool:
    """Return whether a rehearsal is there, or half taken back, that this run does not want there.

    Args:
        record: of the volume.
        rehearse: the user wants a rehearsal.

    Raises:
        StorageError: a record cannot be read.
    """
    layout, state = record.layout, record.state
    receipt = load_receipt(layout)
    planned = receipt or (state.receipt if state is not None else None)
    if planned is None or not planned.rehearsal:
        return False
    name = planned.library.name
    is_published = os.path.lexists(layout.library(name))
    if rehearse and (receipt is None or is_published):
        return False
    return is_published or os.path.isdir(layout.staged(name))


def _forget_changed(layout: Layout, state: State) -> None:
    about = state.snapshot
    try:
        root = os.fsencode(about.library.name)
        manifest = read_manifest(layout.manifest(about.id), about.id, root, about.kind)
    except FileNotFoundError:
        return  # then nothing is taken over
    fidelity = state.fidelity or EXACT
    changed = list(_changed_files(layout.staging, manifest, fidelity))
    digests = FileDigests(layout.digests(about.id), manifest.plan.entries)
    digests.put([(number, None) for number, _ in changed])
    journal = Journal(layout.journal(about.id), len(manifest.plan))
    try:
        journal.redo(
            sorted({frame for each in changed for frame in manifest.plan.frames_of(*each)})
        )
    finally:
        journal.close()


def _changed_files(
    staging: str, manifest: ManifestFile, fidelity: Fidelity
) -> Iterator[tuple[int, Entry]]:
    fd = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with DirStack(fd) as folders:
            for number, entry in enumerate(manifest):
                if entry.kind is Kind.FILE and not _is_as_brought(folders, fidelity.kept(entry)):
                    yield number, entry
    finally:
        os.close(fd)


def _is_as_brought(folders: DirStack, entry: Entry) -> bool:
    if is_of_database(entry):
        return False
    try:
        folder, name = folders.parent(entry.path)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    seen = stat.S_ISREG(info.st_mode), info.st_size, info.st_mtime_ns
    return seen == (True, entry.size, entry.mtime_ns)
