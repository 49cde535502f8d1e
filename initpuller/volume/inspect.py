"""Inspect the volume, and find the row of docs/states.md that it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from initpuller.volume.decision import Action, Findings, OnExisting, decide
from initpuller.volume.filesystem import is_mount_point
from initpuller.volume.foreign_library import check_wholeness, is_skeleton
from initpuller.volume.publish.unpublish import is_to_be_taken_back
from initpuller.volume.records.layout import USUAL_NAME, Layout
from initpuller.volume.records.receipt import Receipt, load_receipt
from shared.checks import some
from shared.errors import TargetConflict, storage_errors
from shared.plex.sqlite_check import DatabaseCheck
from shared.presence import is_folder, is_there

if TYPE_CHECKING:
    from initpuller.volume.records.pull_record import PullRecord

_log = structlog.get_logger("puller")

_DISPLACING = (Action.TRANSFER, Action.BEGIN_ANEW, Action.COMMIT, Action.PUBLISH)
"""If something has the library's name, these actions end with a rename of it."""
_IN_THE_WAY = "Move it away, or give --on-existing set-aside."
_TORSO = (
    "Something else was stopped in the middle. Remove it, or give --on-existing set-aside, and run"
    " again."
)
_MOUNTED = (
    "A mount point cannot be renamed, so --on-existing set-aside does not help. Mount the volume at"
    " its parent folder, without a mount (subPath) of its own for the library, and run again."
)


def finished(layout: Layout, *, rehearse: bool = False) -> Receipt | None:
    """Return the receipt if there is one and its library is there: then a run does nothing.

    If ``rehearse``, the receipt of a rehearsal counts too.
    """
    receipt = load_receipt(layout)
    if receipt is None or (receipt.rehearsal and not rehearse):
        return None
    library = layout.library(receipt.library.name)
    with storage_errors(library):
        return receipt if _holds_library(library) else None


def look(
    record: PullRecord,
    on_existing: OnExisting,
    name: str | None = None,
    *,
    rehearse: bool = False,
    depth: DatabaseCheck = DatabaseCheck.QUICK,
) -> Action:
    """Return what a run is to do with this volume.

    Args:
        record: of the volume.
        on_existing: what the user wants done with a library that is not ours.
        name: the library's name, once the agent has reported it.
        rehearse: the user wants a rehearsal.
        depth: how much is checked of the databases of a library that is not ours.

    Raises:
        TargetConflict: nothing may be done.
    """
    layout, state = record.layout, record.state
    receipt = load_receipt(layout)
    if receipt is not None:
        name = receipt.library.name
    elif state is not None and name is None:
        name = state.snapshot.library.name
    name = name or USUAL_NAME
    final = layout.library(name)
    planned = state.receipt if state is not None else None
    with storage_errors(layout.target):
        is_staged = is_folder(layout.staged(name))
        is_library = (
            _holds_library(final)
            if receipt is not None
            else is_there(final) and not is_out_of_the_way(layout, name)
        )
    found = Findings(
        receipt=receipt is not None,
        library=is_library,
        phase=state.phase if state is not None else None,
        staged=is_staged,
        displaces=planned is not None and planned.set_aside is not None,
        names_cutover=state is not None and bool(state.cutover),
        returns=is_to_be_taken_back(record, rehearse=rehearse),
    )
    action = decide(found, on_existing)
    if found.library and action in _DISPLACING and is_mount_point(final):
        raise TargetConflict("a mount point has the library's name", path=final, hint=_MOUNTED)
    if action is Action.SKIP:
        _refuse_torso(final, depth)
        _log.warning(
            "A LIBRARY THAT IS NOT OURS IS ALREADY THERE: nothing was done, it may be incomplete",
            path=final,
            hint="Move it away, or give --on-existing set-aside",
        )
    elif action is Action.REFUSE_EXISTING:
        raise TargetConflict(
            "something that is not ours has the library's name",
            path=final,
            hint=_MOUNTED if is_mount_point(final) else _IN_THE_WAY,
        )
    elif action is Action.REFUSE_LOST:
        raise TargetConflict(
            "the receipt says that the library was moved here, but it is gone",
            path=final,
            hint=f"To move it again, remove {layout.receipt}.",
        )
    return action


def _holds_library(path: str) -> bool:
    """Return whether a library is at ``path``. Empty folders alone do not count."""
    if not is_folder(path):
        return False
    try:
        return not is_skeleton(path)
    except PermissionError:  # a folder in it is of another user, and not of Kubernetes
        return True


def is_out_of_the_way(layout: Layout, name: str) -> bool:
    """Return whether what has the library's name may be set aside without being asked to."""
    final = layout.library(name)
    with storage_errors(final):
        return is_skeleton(final)


def name_taken(library: str) -> TargetConflict:
    """Return the error for something that took the library's name during the move."""
    return TargetConflict(
        "something that is not ours has taken the library's name during the move",
        path=library,
        hint="Move it away, or give --on-existing set-aside, and run again: the copied data is"
        " kept. Plex on the VM stays stopped only if the move was committed: 'plexodus-agent"
        " status' there shows it, and 'plexodus-agent undo' starts Plex.",
    )


def _refuse_torso(library: str, depth: DatabaseCheck) -> None:
    with storage_errors(library):
        found = check_wholeness(library, depth)
    if found.missing:
        raise TargetConflict(
            f"a part of a Plex library that is not ours is there: {some(found.missing)}",
            path=library,
            hint=_MOUNTED if is_mount_point(library) else _TORSO,
        )
    if found.unchecked:
        _log.warning(
            "databases of the existing library not checked",
            path=library,
            databases=found.unchecked,
            hint="Check them with 'Plex SQLite' before you rely on this library.",
        )
