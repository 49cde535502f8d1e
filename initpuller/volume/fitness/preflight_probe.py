"""Probe a volume for a preflight: there is no manifest yet, and a pull may be running."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import mount_of
from initpuller.volume.fitness.capabilities import ALWAYS_NEEDED, judge, losses
from initpuller.volume.fitness.probe import probe
from initpuller.volume.fitness.requirements import Needs
from initpuller.volume.records.lock import locked
from shared.checks import CheckId
from shared.errors import StorageError, VolumeLocked

if TYPE_CHECKING:
    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records.layout import Layout
    from shared.checks import Check


def probe_for_preflight(layout: Layout, ownership: Ownership) -> list[Check]:
    """Return the abilities of the volume that a library of Plex may need.

    Write only a scratch folder, and remove the puller's own folder if that was not there before. Do
    not probe a volume that is mounted read-only, or that a pull is writing to.
    """
    volume, is_new = mount_of(layout.target), not os.path.lexists(layout.folder)
    try:
        with locked(layout):
            try:
                return _checks(layout, ownership, volume)
            finally:
                if is_new:  # remove it while the lock in it is held: see :func:`locked`
                    with suppress(OSError):
                        os.unlink(layout.lock)
                        os.rmdir(layout.folder)
    except VolumeLocked:
        return [CheckId.VOLUME.passed("not probed: a pull is at work on it, and has probed it")]
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EROFS:
            advice = (
                "Mount it read-write for this preflight to probe it. A pull has to write to it."
            )
            return [CheckId.VOLUME.warning(f"not probed: {volume} is mounted read-only", advice)]
        return [CheckId.VOLUME.failure(f"{volume}: {error.what}", error.hint)]


def _checks(layout: Layout, ownership: Ownership, volume: str) -> list[Check]:
    needs = Needs.generic()
    abilities = probe(layout, needs, ownership)
    owner = {CheckId.VOLUME_OWNER} if ownership.fixed else set()  # otherwise the source decides
    checks = judge(abilities, volume, ALWAYS_NEEDED | owner)
    checks += losses(abilities.fidelity, needs, volume)
    if abilities.folds_names:
        found = f"on the volume at {volume}, names that differ only in case or Unicode form are one"
        advice = "A pull is refused if the library has such names. Use ext4 or XFS to be sure."
        checks.append(CheckId.VOLUME_CASE.warning(found, advice))
    if checks:
        return checks
    found = f"{volume} keeps owners, modes, times, links and names, and can rename and lock"
    return [CheckId.VOLUME.passed(found)]
