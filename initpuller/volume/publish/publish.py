"""The one rename, and the receipt: every crash point between has one defined continuation.

1. state ``publishing`` with the receipt in it, durable (after ``committing``, in a cutover)
2. manifest and digests in place; an existing library that is to be set aside: renamed
3. staging/NAME renamed to NAME, its folder fsynced
4. receipt durable
5. leftovers removed
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from initpuller.volume.cleanup import remove_leftovers
from initpuller.volume.decision import OnExisting
from initpuller.volume.fidelity import losses
from initpuller.volume.filesystem import hash_file, opened, set_aside_path
from initpuller.volume.foreign_library import is_skeleton
from initpuller.volume.ownership import OWNER_ACCESS
from initpuller.volume.records.receipt import Receipt
from initpuller.volume.records.record_file import drop_files, save_record
from initpuller.volume.records.transitions import prepared, set_aside_planned
from shared import __version__
from shared.durable import fsync_folder, rename_noreplace
from shared.errors import (
    PlexodusError,
    StorageError,
    TargetConflict,
    storage_error,
    storage_errors,
)
from shared.presence import is_there, mode_at
from shared.timestamps import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.volume.records.state import Phase
    from initpuller.volume.staging.staging import Staging
    from shared.plex.library import ServerFacts

_log = structlog.get_logger("puller")
_MODE = 0o7777


@dataclass(frozen=True)
class Observations:
    """The content of the receipt beside the snapshot."""

    preferences: dict[str, str] = field(default_factory=dict)
    """Plex's preferences that were set in the volume's copy."""
    databases: dict[str, str] = field(default_factory=dict)
    """What the agent's check of each of the source's databases found."""
    plex: ServerFacts | None = None
    """What the server was, if it is Plex."""


def prepare(staging: Staging, phase: Phase, observed: Observations, *, displace: bool) -> None:
    """Step 1: record the receipt that is about to be valid.

    Args:
        staging: finished and verified.
        phase: that comes next: ``committing`` in a cutover, otherwise ``publishing``.
        observed: what the receipt says beside the snapshot.
        displace: set aside what has the library's name, if something has.
    """
    layout, state, about = staging.layout, staging.state, staging.state.snapshot
    with storage_errors(layout.folder):
        staging.close_folders()
        displaces = displace and is_there(layout.library(about.library.name))
        receipt = Receipt(
            format=1,
            plexodus=__version__,
            library=about.library,
            snapshot=about.id,
            manifest_file_sha256=hash_file(layout.manifest(about.id)).hex(),
            sums_sha256=hash_file(layout.sums(about.id)).hex(),
            entries=about.entries,
            files=about.files,
            content_bytes=about.content_bytes,
            owner=state.owner,
            exclude=about.exclude,
            omitted=about.omitted,
            scanned=about.created,
            started=state.started,
            verified=timestamp(),
            runs=state.runs,
            preferences=observed.preferences,
            databases=observed.databases,
            plex=observed.plex,
            rehearsal=about.kind == "rehearsal",
            set_aside=_aside(layout, about.library.name) if displaces else None,
            losses=losses(staging.manifest, staging.policy),
        )
        top_mode = staging.manifest.entries(0, 1)[0].mode
    staging.record.apply(prepared, phase, receipt, top_mode)


def displace(record: PullRecord, on_existing: OnExisting) -> None:
    """Plan that step 2 sets aside what has taken the library's name since step 1.

    That is done if the user wants it, or if it is only empty folders.
    """
    layout, receipt = record.layout, record.planned
    name, aside = receipt.library.name, receipt.set_aside
    final = layout.library(name)
    with storage_errors(final):
        if on_existing is not OnExisting.SET_ASIDE and not is_skeleton(final):
            return
        is_due = aside is None or is_there(layout.library(aside))
        if not (is_due and is_there(final) and is_there(layout.staged(name))):
            return
        following = _aside(layout, name)
    if aside is not None:
        _log.warning("set aside already", path=layout.library(aside))
    record.apply(set_aside_planned, following)


def _aside(layout: Layout, name: str) -> str:
    return os.path.basename(set_aside_path(layout.library(name)))


def publish(record: PullRecord, permit: Callable[[], None]) -> Receipt:
    """Take steps 2 to 5, and return the receipt; skip the rename if it was done before.

    ``permit`` is called right before the rename, and raises if the library may no longer appear.

    Raises:
        PlexodusError: that of ``permit``; what was there before is there again.
        TargetConflict: something took the library's name meanwhile.
        StorageError: what was there before is there again.
    """
    layout, receipt = record.layout, record.planned
    undo = _Undo()
    try:
        is_due = not _is_renamed(layout, receipt.library.name)
        # A power loss may leave the rename of the library, and not those of its lists before it.
        _place_records(layout, receipt.snapshot)
        if is_due:
            _rename(layout, receipt, undo, permit)
        else:
            with storage_errors(layout.target):  # the earlier run may have been killed before this
                fsync_folder(layout.target)
        seal(record, receipt, undo)
    except PlexodusError:
        undo.run()
        raise
    try:
        remove_leftovers(record, receipt)
    except OSError as error:  # all is there, and the next run removes them
        _log.warning("leftovers of the pull stay", path=layout.folder, reason=str(error))
    return receipt


def _is_renamed(layout: Layout, name: str) -> bool:
    """Return whether step 3 was taken. The receipt is written without it only if that is certain.

    Raises:
        StorageError: the library is at neither of its places.
    """
    final = layout.library(name)
    with storage_errors(layout.staged(name)):
        if is_there(layout.staged(name)):
            return False
    with storage_errors(final):
        is_own_folder = stat.S_ISDIR(mode_at(final, follow_symlinks=False))
        if is_own_folder and not is_skeleton(final):
            return True
    raise StorageError(
        "the verified library is neither in staging nor in its place",
        path=final,
        hint="Something has removed it. Run again: it is then transferred again.",
    )


def _rename(layout: Layout, receipt: Receipt, undo: _Undo, permit: Callable[[], None]) -> None:
    """Take the rest of step 2, and step 3; ``undo`` gets what takes them back."""
    final, staged = layout.library(receipt.library.name), layout.staged(receipt.library.name)
    aside = layout.library(receipt.set_aside) if receipt.set_aside else None
    try:
        open_top(staged)
        if aside is not None and is_there(final) and not is_there(aside):
            undo.add(_rename_back, aside, final)
            os.rename(final, aside)
        undo.add(_stage_again, final, staged)
        permit()
        rename_noreplace(staged, final)
        fsync_folder(layout.target)
        fsync_folder(layout.staging)
    except FileExistsError as error:
        raise TargetConflict(
            "something has taken the library's name meanwhile",
            path=final,
            hint="Move it away, or give --on-existing set-aside, and run again: the verified"
            " library waits in staging.",
        ) from error
    except OSError as error:
        raise storage_error(error, final) from error


def seal(record: PullRecord, receipt: Receipt, undo: _Undo) -> None:
    """Take step 4; ``undo`` gets what takes it back.

    The volume may have been moved onto before. Notes about that library's Plex go first: with them,
    this one would not be checked, and would get a setting of that one.
    """
    layout, top_mode = record.layout, record.current.top_mode
    with storage_errors(layout.folder):
        drop_files(layout.migrated, layout.trash)
        fsync_folder(layout.folder)
        with opened(layout.library(receipt.library.name)) as top:
            if os.fstat(top).st_mode & _MODE != top_mode:
                os.fchmod(top, top_mode)
            os.fsync(top)  # the fsync of the receipt need not make this mode durable
        undo.add(_drop_receipt, layout.receipt)
        save_record(layout.receipt, receipt)


class _Undo:
    """Takes back the steps of a publication, each of which is registered before it is taken.

    A step may have been taken although it failed: a network filesystem can lose an answer.
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def add(self, step: Callable[..., None], *paths: str) -> None:
        """Register ``step``, which gets ``paths``."""
        self._steps.append(partial(step, *paths))

    def run(self) -> None:
        """Take back the last step first. One that fails is the end: never a receipt alone."""
        try:
            for step in reversed(self._steps):
                step()
        except OSError as error:  # the one that led here is reported
            _log.warning("the publication cannot be undone", reason=str(error))


def _drop_receipt(path: str) -> None:
    """Remove the receipt; whether it is there, only its removal can say."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    fsync_folder(os.path.dirname(path))


def _stage_again(final: str, staged: str) -> None:
    """Return the library to staging; without privileges, only a writable folder can be renamed."""
    if not is_there(staged):
        open_top(final)
        _rename_back(final, staged)


def _rename_back(now: str, before: str) -> None:
    if is_there(now) and not is_there(before):
        rename_noreplace(now, before)
        for folder in (os.path.dirname(before), os.path.dirname(now)):
            try:
                fsync_folder(folder)
            except OSError as error:  # the names are right, if perhaps not after a power loss
                _log.warning("a rename is not durable", path=folder, reason=str(error))


def _place_records(layout: Layout, snapshot: str) -> None:
    """Rename manifest and digests; the receipt's fsync of their folder makes this durable."""
    for now, then in (
        (layout.manifest(snapshot), layout.receipt_manifest),
        (layout.sums(snapshot), layout.receipt_sums),
        (layout.omitted(snapshot), layout.receipt_omitted),
    ):
        with storage_errors(now), suppress(FileNotFoundError):  # an earlier run has placed it
            os.rename(now, then)


def open_top(staged: str) -> None:
    """Give the owner access: without privileges, only a writable folder can be renamed."""
    mode = os.stat(staged).st_mode & _MODE
    if mode & OWNER_ACCESS != OWNER_ACCESS:
        os.chmod(staged, mode | OWNER_ACCESS)
