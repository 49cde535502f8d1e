"""The probe of a volume for a preflight: there is no manifest yet, and a pull may be at work."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import mount_of
from initpuller.volume.fitness.needs import Needs
from initpuller.volume.fitness.probe import probe
from initpuller.volume.fitness.suitability import ALWAYS_NEEDED, Ability, judge, losses
from initpuller.volume.records.lock import locked
from shared.checks import Check, Outcome
from shared.errors import NoSpace, StorageError, VolumeLocked

if TYPE_CHECKING:
    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records.layout import Layout

_NAME = "volume"


def probed(layout: Layout, ownership: Ownership) -> list[Check]:
    """Return what the volume can and cannot do of what a library of Plex may need.

    Only a throw-away folder is written. If the puller's own folder was not there, it is removed,
    too. A volume that is mounted read-only, or that a pull is at work on, is not probed.

    Args:
        layout: the volume.
        ownership: whose the files shall be.
    """
    volume, is_new = mount_of(layout.target), not os.path.lexists(layout.folder)
    try:
        with locked(layout):
            try:
                return _checks(layout, ownership, volume)
            finally:
                if is_new:
                    _remove_folder(layout)
    except VolumeLocked:
        return [
            Check(_NAME, Outcome.PASS, "not probed: a pull is at work on it, and has probed it")
        ]
    except NoSpace as error:
        return [Check(_NAME, Outcome.FAILURE, f"{volume}: {error.what}", error.hint)]
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EROFS:
            advice = (
                "Mount it read-write for this preflight to probe it. A pull has to write to it."
            )
            found = f"not probed: {volume} is mounted read-only"
            return [Check(_NAME, Outcome.WARNING, found, advice)]
        return [Check(_NAME, Outcome.FAILURE, f"{volume}: {error.what}", error.hint)]


def _checks(layout: Layout, ownership: Ownership, volume: str) -> list[Check]:
    needs = Needs.generic()
    abilities = probe(layout, needs, ownership)
    owner = {Ability.OWNER} if ownership.fixed else set()  # else it depends on the source
    checks = judge(abilities, volume, ALWAYS_NEEDED | owner)
    checks += losses(abilities.fidelity, needs, volume)
    if abilities.folds_names:
        found = f"on the volume at {volume}, names that differ only in case or Unicode form are one"
        advice = "A pull is refused if the library has such names. Use ext4 or XFS to be sure."
        checks.append(Check("volume: case", Outcome.WARNING, found, advice))
    if checks:
        return checks
    found = f"{volume} keeps owners, modes, times, links and names, and can rename and lock"
    return [Check(_NAME, Outcome.PASS, found)]


def _remove_folder(layout: Layout) -> None:
    """Remove the puller's own folder while the lock in it is held: see :func:`locked`."""
    with suppress(OSError):
        os.unlink(layout.lock)
        os.rmdir(layout.folder)
