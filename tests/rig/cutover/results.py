"""Checks of what a pull of the model leaves on its volume, given how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from initpuller.pull.options import Mode
from initpuller.volume.decision import OnExisting
from rig.cutover import library as cutover_library

if TYPE_CHECKING:
    from rig.cutover.volume import Request, Volume


@dataclass(frozen=True)
class Before:
    """The state of the library's name before a pull."""

    inode: int | None
    """Inode of what is there; None if nothing is."""
    is_moved: bool
    """Whether it has the receipt of a move."""


def begin_pull(volume: Volume) -> Before:
    """Return what is there before a pull. From now on, the volume follows what people change."""
    volume.expected = volume.inode()
    return Before(volume.expected, volume.receipt is not None)


def check_result(volume: Volume, before: Before, request: Request, ended: str) -> None:
    """Assert that the volume is as the end of a pull says.

    Args:
        volume: the volume.
        before: what was there before.
        request: the options of the pull.
        ended: ``done``, ``killed``, or the class of the error.
    """
    assert volume.foreign <= volume.folders(), "the library of somebody else is gone"
    is_foreign = volume.inode() in volume.foreign
    if ended == "killed":
        return
    if ended == "done" and not request.mode.is_preseed:
        if is_foreign:
            assert request.on_existing is OnExisting.SKIP, "what was there was not moved"
        else:
            _check_published(volume, request)
    else:
        _check_unchanged(volume, before, ended)


def _check_published(volume: Volume, request: Request) -> None:
    """Assert that a receipt is there, and the library as it was published."""
    if request.mode is Mode.REHEARSE and volume.receipt is None:
        assert volume.has_rehearsal, "there is no receipt of the rehearsal"
        assert volume.library.is_dir(), "there is no rehearsal"
        return
    assert volume.receipt is not None, "there is no receipt"
    found = cutover_library.tree(volume.library)
    volume.published_as = volume.published_as or found
    assert found == volume.published_as, "the library has changed since its publication"


def _check_unchanged(volume: Volume, before: Before, ended: str) -> None:
    """Assert that the name has what it had, except what a pull moves back at its start.

    A pull moves back a rehearsal, and a library without a receipt if its move was undone. A library
    that was set aside for it gets its name back.
    """
    found = volume.inode()
    was_ours = before.inode is not None and before.inode not in volume.foreign
    may_move_back = before.inode is None or (was_ours and not before.is_moved)
    is_restored = found is None or found in volume.foreign
    assert found == volume.expected or (may_move_back and is_restored), (
        f"{ended}, and the library has appeared or gone"
    )
