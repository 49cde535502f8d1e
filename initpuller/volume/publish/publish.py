"""The one rename, and the receipt: every crash point between has one defined continuation.

1. state ``publishing`` with the receipt in it, durable (after ``committing``, in a cutover)
2. manifest and digests in place; what has the library's name and shall be set aside: renamed
3. staging/NAME renamed to NAME, its folder fsynced
4. receipt durable
5. leftovers removed
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from initpuller.volume.cleanup import remove_leftovers
from initpuller.volume.decision import OnExisting
from initpuller.volume.fidelity import losses
from initpuller.volume.foreign_library import is_skeleton
from initpuller.volume.records.receipt import Receipt, save_receipt
from initpuller.volume.records.state import Phase, State, save_state
from shared import __version__
from shared.durable import fsync_folder, rename_noreplace
from shared.errors import TargetConflict, storage_error
from shared.frames.file_digests import hash_descriptor
from shared.timestamps import compact_timestamp, timestamp

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.staging.staging import Staging
    from shared.plex.library import ServerFacts

_log = structlog.get_logger("puller")
_OWNER, _MODE = 0o700, 0o7777


def prepare(
    staging: Staging,
    phase: Phase,
    preferences: dict[str, str],
    plex: ServerFacts | None,
    *,
    displace: bool,
) -> Receipt:
    """Step 1: write down what is about to be published.

    Args:
        staging: finished and verified.
        phase: what the state shall say.
        preferences: those of Plex that were set in it.
        plex: what the server was.
        displace: set aside what has the library's name, if something has.

    Returns:
        The receipt, not yet valid.

    Raises:
        StorageError: as the filesystem says.
    """
    layout, state = staging.layout, staging.state
    name = state.snapshot.id
    try:
        staging.finisher.close_folders()
        state.top_mode = staging.manifest.entries(0, 1)[0].mode
        library = state.snapshot.library
        displaces = displace and os.path.lexists(layout.library(library.name))
        aside = _aside(library.name) if displaces else None
        state.receipt = Receipt(
            format=1,
            plexodus=__version__,
            library=library,
            snapshot=name,
            manifest_file_sha256=_hash(layout.manifest(name)),
            sums_sha256=_hash(layout.sums(name)),
            entries=state.snapshot.entries,
            files=state.snapshot.files,
            content_bytes=state.snapshot.content_bytes,
            owner=state.owner,
            exclude=state.snapshot.exclude,
            excluded=state.snapshot.excluded,
            skipped=state.snapshot.skipped,
            scanned=state.snapshot.created,
            started=state.started,
            verified=timestamp(),
            runs=state.runs,
            preferences=preferences,
            databases=state.databases,
            plex=plex,
            rehearsal=state.snapshot.kind == "rehearsal",
            set_aside=aside,
            losses=losses(staging.manifest, staging.policy),
        )
        state.phase = phase
        if phase == "publishing":
            state.cutover = ""  # an earlier run's: nothing was stopped for what is published now
        save_state(layout, state)
    except OSError as error:
        raise storage_error(error, layout.folder) from error
    return state.receipt


def displace(layout: Layout, state: State, on_existing: OnExisting) -> None:
    """Have what has taken the library's name since step 1 set aside in step 2.

    That is done if we are told to, or if it is only empty folders.

    Raises:
        StorageError: as the filesystem says.
    """
    if state.receipt is None:
        return
    is_wanted = on_existing is OnExisting.SET_ASIDE
    if not is_wanted and not is_skeleton(layout.library(state.receipt.library.name)):
        return
    name, aside = state.receipt.library.name, state.receipt.set_aside
    is_due = aside is None or os.path.lexists(layout.library(aside))
    is_there = os.path.lexists(layout.library(name))
    if is_due and is_there and os.path.isdir(layout.staged(name)):
        if aside is not None:
            _log.warning("set aside already", path=layout.library(aside))
        state.receipt.set_aside = _aside(name)
        save_state(layout, state)


def _aside(name: str) -> str:
    return f"{name}.set-aside-{compact_timestamp()}"


def publish(layout: Layout, state: State, receipt: Receipt) -> None:
    """Steps 2 to 5; a library that was renamed already only gets its receipt.

    Raises:
        TargetConflict: something took the library's name meanwhile.
        StorageError: as the filesystem says; what was there before is there again.
    """
    if os.path.isdir(layout.staged(receipt.library.name)):
        _rename(layout, receipt)
    seal(layout, state, receipt)


def _rename(layout: Layout, receipt: Receipt) -> None:
    final = layout.library(receipt.library.name)
    aside = layout.library(receipt.set_aside) if receipt.set_aside else None
    moved_aside = False
    try:
        _place_records(layout, receipt.snapshot)
        open_top(layout.staged(receipt.library.name))
        if aside is not None and os.path.lexists(final) and not os.path.lexists(aside):
            os.rename(final, aside)
            moved_aside = True
        rename_noreplace(layout.staged(receipt.library.name), final)
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
        if moved_aside and aside is not None and not os.path.lexists(final):
            os.rename(aside, final)
        raise storage_error(error, final) from error


def seal(layout: Layout, state: State, receipt: Receipt) -> None:
    """Steps 4 and 5.

    Raises:
        StorageError: as the filesystem says.
    """
    try:
        final = layout.library(receipt.library.name)
        if os.stat(final).st_mode & _MODE != state.top_mode:
            os.chmod(final, state.top_mode)
        save_receipt(layout, receipt)
        remove_leftovers(layout, receipt)
    except OSError as error:
        raise storage_error(error, layout.folder) from error


def _place_records(layout: Layout, snapshot: str) -> None:
    """Durable with the receipt, which is in the same folder and comes later."""
    for now, then in (
        (layout.manifest(snapshot), layout.receipt_manifest),
        (layout.sums(snapshot), layout.receipt_sums),
    ):
        if os.path.lexists(now):
            os.rename(now, then)


def open_top(staged: str) -> None:
    """Without privileges, only a folder that we may write can be moved (rename(2), EACCES)."""
    mode = os.stat(staged).st_mode & _MODE
    if mode & _OWNER != _OWNER:
        os.chmod(staged, mode | _OWNER)


def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return hash_descriptor(file.fileno()).hex()
