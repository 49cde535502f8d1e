"""Turn the results of a probe into checks: what the volume cannot do, and whether that matters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from initpuller.volume.fidelity import Fidelity
from shared.checks import CheckId, Outcome
from shared.errors import VolumeUnsuitable

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from initpuller.volume.fitness.requirements import Needs
    from shared.checks import Check

_UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "\u00b5s"), (1, "ns"))
_ADVICE = {
    CheckId.VOLUME_OWNER: "Give --owner with the owner that this volume enforces, mount it without"
    " a forced owner (root_squash, forceuid, an EFS access point), or use a block volume.",
    CheckId.VOLUME_MODE: "Mount the volume so that chmod works (no forced file_mode or dir_mode),"
    " or use a block volume.",
    CheckId.VOLUME_TIMES: "Mount the volume so that its user may set the times of files, or use a"
    " block volume.",
    CheckId.VOLUME_HARD_LINKS: "Use a volume with hard links, such as a block volume, or leave the"
    " linked files out with --exclude.",
    CheckId.VOLUME_SYMLINKS: "Use a volume with symlinks, such as a block volume.",
    CheckId.VOLUME_HOLES: "Sparse files will take their full size on this volume. Make sure that"
    " there is room for them.",
    CheckId.VOLUME_FILE_SIZE: "Use a volume whose filesystem takes larger files, or leave the file"
    " out with --exclude.",
    CheckId.VOLUME_NAMES: "Use a volume that takes the name, such as ext4 or XFS, or leave it out"
    " with --exclude.",
    CheckId.VOLUME_PATHS: "Use a volume that takes the path, such as ext4 or XFS, or leave it out"
    " with --exclude.",
    CheckId.VOLUME_LOCKS: "Use a volume on which databases work: a block volume, or NFS 4. On NFS"
    " 3, start the lock service (rpc.statd) on both sides, or mount with 'local_lock=all' if only"
    " one node uses the volume. mergerfs needs 'cache.files=auto-full'.",
    CheckId.VOLUME_RENAME: "Mount nothing at .plexodus or below it: it has to be on the same mount"
    " as the target.",
}
"""Everything that a volume may be unable to do, as its check, with advice."""
_ONLY_WARNS = {CheckId.VOLUME_HOLES}
ALWAYS_NEEDED = frozenset(
    (
        CheckId.VOLUME_MODE,
        CheckId.VOLUME_TIMES,
        CheckId.VOLUME_SYMLINKS,
        CheckId.VOLUME_LOCKS,
        CheckId.VOLUME_RENAME,
    )
)
"""Abilities that every library of Plex needs, whatever is in its manifest."""


@dataclass
class Abilities:
    """Results of a probe."""

    fidelity: Fidelity = field(default_factory=Fidelity)
    """How exactly the volume keeps times and extended attributes."""
    shortfalls: dict[CheckId, str] = field(default_factory=dict)
    """What failed, with a description of the failure."""
    folds_names: bool = False
    """Two names that differ in case or in Unicode form can be one file."""


def judge(
    abilities: Abilities, volume: str, needed: Container[CheckId] = frozenset(_ADVICE)
) -> list[Check]:
    """Return a check for each ability that the volume lacks.

    A lack of what is ``needed`` is a failure; other lacks are warnings. A manifest needs all that
    the probe tried for it. ``volume`` is its mount point and type.
    """
    found = []
    for ability, what in abilities.shortfalls.items():
        is_failure = ability in needed and ability not in _ONLY_WARNS
        report = ability.failure if is_failure else ability.warning
        found.append(report(f"on the volume at {volume}, {what}", _ADVICE[ability]))
    return found


def losses(fidelity: Fidelity, needs: Needs, volume: str) -> list[Check]:
    """Return a warning for each attribute that the volume keeps less exactly than needed."""
    found = []
    if fidelity.time_step_ns > 1:
        size, unit = next(each for each in _UNITS if fidelity.time_step_ns >= each[0])
        what = f"times are rounded down to a multiple of {fidelity.time_step_ns // size} {unit}"
        found.append((CheckId.VOLUME_TIMES, what))
    if _clamps(fidelity, needs):
        what = "some times are out of range and become the nearest possible time"
        found.append((CheckId.VOLUME_TIMES, what))
    if _drops_xattrs(fidelity, needs):
        limit = fidelity.xattr_bytes
        what = f"extended attributes of more than {limit} bytes an entry are left out"
        none = "extended attributes (user.) cannot be kept and are left out"
        found.append((CheckId.VOLUME_XATTRS, f"{what if limit else none} (Plex needs none)"))
    advice = "The receipt lists it. If you need it exactly, use another volume, such as ext4 with"
    advice += " 256-byte inodes."
    return [check.warning(f"on the volume at {volume}, {what}", advice) for check, what in found]


def is_lossy(fidelity: Fidelity, needs: Needs) -> bool:
    """Return whether times are out of the volume's range, or extended attributes are left out."""
    return _clamps(fidelity, needs) or _drops_xattrs(fidelity, needs)


def _clamps(fidelity: Fidelity, needs: Needs) -> bool:
    return fidelity.clamps(needs.earliest_ns) or fidelity.clamps(needs.latest_ns)


def _drops_xattrs(fidelity: Fidelity, needs: Needs) -> bool:
    return fidelity.drops_xattrs(max(needs.xattrs, default=0))


def collision(pairs: Sequence[tuple[str, str]], volume: str) -> Check:
    """Return the failure for paths in the library that are one file on this volume."""
    listing = "; ".join(f"{one} and {other}" for one, other in pairs)
    return CheckId.VOLUME_CASE.failure(
        f"on the volume at {volume}, some names are one and the same file: {listing}",
        "Use a volume that distinguishes case, rename one of them on the VM, or leave one out"
        " with --exclude.",
    )


def refuse(checks: Iterable[Check]) -> None:
    """Raise VolumeUnsuitable if at least one check is a failure."""
    failed = [check for check in checks if check.outcome is Outcome.FAILURE]
    if failed:
        raise VolumeUnsuitable(
            "; ".join(check.found for check in failed),
            hint=" ".join(check.advice for check in failed) + " Then run again.",
        )
