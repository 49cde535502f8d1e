"""Registry of the checks of the target.

Nothing is stopped. Nothing is written except the scratch folder of the probe of the volume.
ARCHITECTURE.md, "Add a check", says which files a new check needs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from initpuller.cluster.api import plex_image
from initpuller.pull.checks.filesystem_names import check_filesystem
from initpuller.pull.checks.placement import check_place
from initpuller.volume.filesystem import filesystem_type, is_mount_point
from initpuller.volume.fitness.volume_fit import probe_for_preflight
from initpuller.volume.foreign_library import Wholeness, check_wholeness, is_skeleton
from shared.checks import EVERY_RUN, PREFLIGHT_ONLY, CheckId, When, duration, size, some
from shared.plex.library import library_name
from shared.presence import is_there
from shared.wire.protocol import LibraryReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from initpuller.plex.version_gate import VersionGate
    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records.layout import Layout
    from shared.checks import Check
    from shared.plex.sqlite_check import DatabaseCheck
    from shared.wire.protocol import MediaFolder, ServerReport

_SECONDS_PER_ENTRY = 0.0002
"""Time for an entry besides its bytes, on both sides together (docs/performance.md)."""
_BYTES_PER_ENTRY = 4096
"""Bytes that an entry may take besides its content: a block of a folder, or a file's last block."""


@dataclass(frozen=True)
class VolumeFacts:
    """Room on the volume, and what is in the library's place."""

    free_bytes: int | None
    """None if the filesystem does not report it."""
    free_inodes: int | None
    """None if the filesystem creates inodes on demand."""
    existing: Wholeness | None = None
    """State of a library that is there already, if there is one."""
    is_mounted: bool = False
    """Something is mounted at the library's own name, so the library cannot be renamed."""


def read_volume(target: str, name: str, depth: DatabaseCheck) -> VolumeFacts:
    """Return facts about the volume at ``target``, and about a library of this name on it.

    ``depth`` says how much of that library's databases is checked.

    Raises:
        OSError: the volume cannot be read.
    """
    about, library = os.statvfs(target), os.path.join(target, name)
    is_in_the_way = is_there(library) and not is_skeleton(library)
    return VolumeFacts(
        free_bytes=about.f_bavail * about.f_frsize if about.f_blocks else None,
        free_inodes=about.f_favail if about.f_files else None,
        existing=check_wholeness(library, depth) if is_in_the_way else None,
        is_mounted=is_mount_point(library),
    )


@dataclass(frozen=True)
class Target:
    """The volume and the pod that a library moves to."""

    layout: Layout
    gate: VersionGate
    ownership: Ownership
    existing_check: DatabaseCheck
    """How much to check of the databases of a library that is on the volume already."""


class TargetFacts:
    """Facts for the checks of the target. Each is looked up when a check first needs it.

    Args:
        target: the volume and the pod.
        source: the agent's report.
        rate: bytes per second from the agent; 0 if not measured.
    """

    def __init__(self, target: Target, source: ServerReport, rate: float = 0.0) -> None:
        self.target = target
        self.source = source
        self.rate = rate
        self.name = library_name(source.library.name, placed=target.layout.places_server)
        """The library's name on the volume."""

    @property
    def whole_source(self) -> LibraryReport:
        """The agent's report with the size of the library, for which a pull does not ask."""
        if not isinstance(self.source, LibraryReport):
            raise TypeError(self.source)
        return self.source

    @cached_property
    def volume(self) -> VolumeFacts:
        """Room on the volume, and what is in the library's place."""
        target = self.target
        return read_volume(target.layout.target, self.name, target.existing_check)

    @cached_property
    def filesystem(self) -> str | None:
        """Type of the volume's filesystem; None if the mount table does not say."""
        return filesystem_type(self.target.layout.target)


@dataclass(frozen=True)
class TargetCheck:
    """One check of the target."""

    id: CheckId
    run: Callable[[TargetFacts], Check | list[Check]]
    """Returns one result, or several if the check has parts with identifiers of their own."""
    when: frozenset[When] = EVERY_RUN


TARGET_CHECKS = (
    TargetCheck(CheckId.VERSION, lambda facts: facts.target.gate.check(facts.source.plex_version)),
    TargetCheck(
        CheckId.PLACEMENT,
        lambda facts: check_place(facts.target.layout, facts.name),
        PREFLIGHT_ONLY,
    ),
    TargetCheck(
        CheckId.SPACE,
        lambda facts: check_space(facts.whole_source, facts.volume.free_bytes),
        PREFLIGHT_ONLY,
    ),
    TargetCheck(
        CheckId.INODES,
        lambda facts: check_inodes(facts.whole_source.entries, facts.volume.free_inodes),
        PREFLIGHT_ONLY,
    ),
    TargetCheck(CheckId.FILESYSTEM, lambda facts: check_filesystem(facts.filesystem)),
    TargetCheck(
        CheckId.TARGET, lambda facts: check_existing(facts.name, facts.volume), PREFLIGHT_ONLY
    ),
    TargetCheck(
        CheckId.VOLUME,
        lambda facts: probe_for_preflight(facts.target.layout, facts.target.ownership),
        PREFLIGHT_ONLY,
    ),
    TargetCheck(
        CheckId.TIME, lambda facts: predict(facts.whole_source, facts.rate), PREFLIGHT_ONLY
    ),
    TargetCheck(
        CheckId.MEDIA_MOUNTS,
        lambda facts: check_media(
            facts.source.media, [each for each in facts.source.media if os.path.isdir(each.path)]
        ),
        PREFLIGHT_ONLY,
    ),
)
"""All checks, in the order in which users see their results.

A pull checks space, placement, the name on the volume and the volume's abilities again at later
steps, with the manifest.
"""


def run_checks(facts: TargetFacts, when: When) -> list[Check]:
    """Return the results of all checks of this command; raise OSError for an unreadable volume."""
    results: list[Check] = []
    for check in TARGET_CHECKS:
        if when in check.when:
            found = check.run(facts)
            results += found if isinstance(found, list) else [found]
    return results


async def completed(gate: VersionGate) -> VersionGate:
    """Return the gate, with the version in the pod's own spec if the user gave none."""
    return gate if gate.plex_version else replace(gate, plex_version=await plex_image())


def predict(report: LibraryReport, rate: float) -> Check:
    """Return how long a pull takes at least. With ``--no-cutover``, Plex is down for so long.

    Reading and sending (``rate`` bytes per second) overlap, so the slower of the two counts. The
    time for each entry comes on top. The speed of the volume is not known before something is
    written.
    """
    sending = report.content_bytes / rate if rate else 0.0
    slower = max(report.read_seconds, sending)
    seconds = slower + report.entries * _SECONDS_PER_ENTRY
    by = "the VM's disk" if report.read_seconds > sending else f"the network, {size(rate)}/s"
    return CheckId.TIME.passed(
        f"at least {duration(seconds)}, if the volume writes as fast: {duration(slower)} for"
        f" {size(report.content_bytes)} by {by} (measured),"
        f" the rest for {report.entries} entries; Plex is down for what it changes in that time",
    )


def check_media(wanted: list[MediaFolder], mounted: list[MediaFolder]) -> Check:
    """Return whether all folders that the database names are those that this pod has."""
    if len(wanted) == len(mounted):
        return CheckId.MEDIA_MOUNTS.passed(f"all {len(wanted)} folders are mounted where they were")
    absent = [f"{each.path} ({each.section})" for each in wanted if each not in mounted]
    return CheckId.MEDIA_MOUNTS.warning(
        f"not in this container: {some(absent)}",
        "Mount the media at the same paths in Plex's container, so that nothing has to be changed."
        " Otherwise 'plexodus-puller paths' shows what to change, and can change it.",
    )


def check_space(report: LibraryReport, free: int | None) -> Check:
    """Return whether the library fits into ``free`` bytes; None if they are not known."""
    needed = report.content_bytes + report.entries * _BYTES_PER_ENTRY
    if free is None:
        found = f"the volume does not report its size; {size(needed)} at most needed"
        return CheckId.SPACE.warning(found, "Make sure that the volume has room for that.")
    found = f"{size(free)} free, {size(needed)} at most needed"
    if needed > free:
        advice = "Enlarge the volume, or leave something out: --exclude-regenerable."
        return CheckId.SPACE.failure(found, advice)
    return CheckId.SPACE.passed(found)


def check_inodes(needed: int, free: int | None) -> Check:
    """Return whether the volume has enough inodes; None means that it has no limit."""
    if free is None:
        return CheckId.INODES.passed("made as they are needed")
    found = f"{free} free, {needed} needed"
    if needed > free:
        advice = "Make the volume with more of them (mkfs -N), or larger."
        return CheckId.INODES.failure(found, advice)
    return CheckId.INODES.passed(found)


def check_existing(name: str, volume: VolumeFacts) -> Check:
    """Return whether the library's name on the volume is free."""
    existing = volume.existing
    if existing is None:
        return CheckId.TARGET.passed(f"there is no {name} yet")
    if volume.is_mounted:
        return CheckId.TARGET.failure(
            f"{name} is a mount point",
            "Mount the volume at its parent folder, without a mount (subPath) of its own for the"
            " library. --on-existing set-aside cannot rename a mount point.",
        )
    if existing.missing:
        found = f"a part of a {name} is there: {some(existing.missing)}"
        return CheckId.TARGET.failure(found, "Remove it, or give --on-existing set-aside.")
    found = f"a {name} is there already"
    if existing.unchecked:
        found += f"; databases not checked: {some(existing.unchecked)}"
    advice = "A pull leaves it as it is; --on-existing set-aside puts the source's in its place."
    return CheckId.TARGET.warning(found, advice)
