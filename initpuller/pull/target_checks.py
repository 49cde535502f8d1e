"""What would keep a move onto this volume from ending well: asked of the agent, looked at here.

Nothing is stopped, and nothing is written but the throw-away folder of
:mod:`initpuller.volume.fitness.probe`.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from initpuller.agent_client.retry import IDLE_SECONDS, Retrier
from initpuller.cluster.api import plex_image
from initpuller.pull.placement import check_place
from initpuller.volume.filesystem import is_mount_point, network_filesystem
from initpuller.volume.fitness.volume_check import probed
from initpuller.volume.foreign_library import Wholeness, check_wholeness, is_skeleton
from initpuller.volume.records.target import open_layout
from shared.checks import Check, Outcome, duration, size, some
from shared.plex.library import library_name
from shared.plex.sqlite_check import DatabaseCheck
from shared.tree.member_path import check_root_name

if TYPE_CHECKING:
    from initpuller.plex.version_gate import VersionGate
    from initpuller.volume.ownership import Ownership
    from shared.wire.pairing import Pairing
    from shared.wire.protocol import LibraryReport, MediaFolder

_PASS, _WARNING, _FAILURE = Outcome.PASS, Outcome.WARNING, Outcome.FAILURE
_AN_ENTRY = 4096
"""Bytes that an entry may take beside its content: a block of a folder, or a file's last one."""
_ENTRY_SECONDS = 0.0002
"""That an entry takes beside its bytes, both sides together (docs/performance.md)."""


@dataclass(frozen=True)
class PreflightOptions:
    """What is asked, and about which pod."""

    pairing: Pairing
    target: str
    gate: VersionGate
    ownership: Ownership
    database_check: DatabaseCheck = DatabaseCheck.FULL
    """How much of the source's databases the agent checks."""
    existing_check: DatabaseCheck = DatabaseCheck.QUICK
    """How much is checked of the databases of a library that is on the volume already."""
    retrier: Retrier = field(default_factory=Retrier)
    idle: float = IDLE_SECONDS
    """Seconds without a byte after which the agent counts as stalled."""


@dataclass(frozen=True)
class Volume:
    """What there is for the library."""

    free_bytes: int | None
    """None where the filesystem does not say."""
    free_inodes: int | None
    """None where the filesystem makes them as it goes."""
    network: str | None
    """Type of the filesystem, if that is one over the network."""
    existing: Wholeness | None
    """Of a library that is there already; None if there is none."""
    is_mounted: bool = False
    """Something is mounted at the library's own name, so it cannot be renamed."""


class Preflight(msgspec.Struct, frozen=True):
    """What was found on both sides."""

    source: list[Check]
    target: list[Check]

    @property
    def failed(self) -> list[str]:
        """The names of the checks that say no."""
        both = [*self.source, *self.target]
        return [check.name for check in both if check.outcome is _FAILURE]


def preflight(options: PreflightOptions) -> Preflight:
    """Look at both sides.

    Raises:
        AgentUnreachable, AuthenticationError, ProtocolViolation: the agent cannot be asked.
        IllegalPath: its library has a name that cannot be moved.
        OSError: the volume cannot be looked at.
    """
    report, rate, gate = asyncio.run(_ask(options))
    check_root_name(os.fsencode(report.library.name))
    layout = open_layout(options.target)
    name = library_name(report.library.name, placed=layout.places_server)
    report = msgspec.structs.replace(
        report, library=msgspec.structs.replace(report.library, name=name)
    )
    target = [
        gate.check(report.plex_version),
        check_place(layout, name),
        *check_volume(report, look_at_volume(layout.target, name, options.existing_check)),
        *probed(layout, options.ownership),
        predict(report, rate),
        check_media(report.media, _there(report.media)),
    ]
    return Preflight(source=report.checks, target=target)


async def completed(gate: VersionGate) -> VersionGate:
    """The gate; if nobody said which Plex the pod runs, with what the pod's own spec says."""
    return gate if gate.plex_version else replace(gate, plex_version=await plex_image())


async def _ask(options: PreflightOptions) -> tuple[LibraryReport, float, VersionGate]:
    """The agent's report, how many bytes a second come from it, and what the pod will run."""
    from initpuller.agent_client.client import AgentClient  # noqa: PLC0415 - takes long to import

    async with AgentClient(options.pairing, options.idle) as client:
        report = await options.retrier.run(
            "the preflight", lambda: client.library(options.database_check)
        )
        rate = await options.retrier.run("the probe", client.probe)
    return report, rate, await completed(options.gate)


def _there(media: list[MediaFolder]) -> list[MediaFolder]:
    return [each for each in media if os.path.isdir(each.path)]


def look_at_volume(target: str, name: str, depth: DatabaseCheck) -> Volume:
    """Return what is known of the volume at ``target``, and of a library that is on it already.

    Args:
        target: where the volume is mounted.
        name: the library's name.
        depth: how much of that library's databases is checked.
    """
    about, library = os.statvfs(target), os.path.join(target, name)
    return Volume(
        free_bytes=about.f_bavail * about.f_frsize if about.f_blocks else None,
        free_inodes=about.f_favail if about.f_files else None,
        network=network_filesystem(target),
        existing=_existing_library(library, depth),
        is_mounted=is_mount_point(library),
    )


def _existing_library(library: str, depth: DatabaseCheck) -> Wholeness | None:
    is_in_the_way = os.path.lexists(library) and not is_skeleton(library)
    return check_wholeness(library, depth) if is_in_the_way else None


def check_volume(report: LibraryReport, volume: Volume) -> list[Check]:
    """Room, locks, and whether something is in the way."""
    needed = report.content_bytes + report.entries * _AN_ENTRY
    space = _check_space(needed, volume.free_bytes)
    inodes = Check("inodes", _PASS, "made as they are needed")
    if volume.free_inodes is not None:
        found = f"{volume.free_inodes} free, {report.entries} needed"
        inodes = Check("inodes", _PASS, found)
        if report.entries > volume.free_inodes:
            advice = "Make the volume with more of them (mkfs -N), or larger."
            inodes = Check("inodes", _FAILURE, found, advice)
    locks = check_filesystem(volume.network)
    return [space, inodes, locks, _existing(report.library.name, volume)]


def _check_space(needed: int, free: int | None) -> Check:
    if free is None:
        found = f"the volume does not report its size; {size(needed)} at most needed"
        return Check("space", _WARNING, found, "Make sure that the volume has room for that.")
    found = f"{size(free)} free, {size(needed)} at most needed"
    if needed > free:
        advice = "Enlarge the volume, or leave something out: --exclude-regenerable."
        return Check("space", _FAILURE, found, advice)
    return Check("space", _PASS, found)


def check_filesystem(network: str | None) -> Check:
    """Whether the volume's locks work as SQLite needs them (https://sqlite.org/faq.html, 5).

    Args:
        network: the type of the filesystem, if that is one over the network.
    """
    if network is None:
        return Check("filesystem", _PASS, "a local one, or a block device's")
    advice = "Use a block volume (iSCSI, Ceph RBD, Longhorn, local) for /config."
    found = f"{network}: SQLite's databases do not survive on a network filesystem"
    return Check("filesystem", _WARNING, found, advice)


def predict(report: LibraryReport, rate: float) -> Check:
    """How long a pull may take; with --no-cutover, Plex is down for so long.

    Reading and sending go on at the same time; what an entry costs comes on top. How fast the
    volume writes is not known before something is written.

    Args:
        report: the agent's, with what reading takes.
        rate: bytes a second from the agent.
    """
    sending = report.content_bytes / rate if rate else 0.0
    slower = max(report.read_seconds, sending)
    seconds = slower + report.entries * _ENTRY_SECONDS
    by = "the VM's disk" if report.read_seconds > sending else f"the network, {size(rate)}/s"
    return Check(
        "time",
        _PASS,
        f"at least {duration(seconds)}, if the volume writes as fast: {duration(slower)} for"
        f" {size(report.content_bytes)} by {by} (measured),"
        f" the rest for {report.entries} entries; Plex is down for what it changes in that time",
    )


def check_media(asked: list[MediaFolder], there: list[MediaFolder]) -> Check:
    """Whether the folders of the media are where the database says, in this pod.

    Args:
        asked: all that the libraries look in.
        there: those that this pod has.
    """
    if len(asked) == len(there):
        return Check("media", _PASS, f"all {len(asked)} folders are mounted where they were")
    absent = [f"{each.path} ({each.section})" for each in asked if each not in there]
    return Check(
        "media",
        _WARNING,
        f"not in this container: {some(absent)}",
        "Mount the media at the same paths in Plex' container, then nothing has to be changed. Else"
        " 'plexodus-puller paths' tells what to change, and can do it.",
    )


def _existing(name: str, volume: Volume) -> Check:
    there = volume.existing
    if there is None:
        return Check("target", _PASS, f"there is no {name} yet")
    if volume.is_mounted:
        advice = (
            "Mount the volume at its parent folder, without a mount (subPath) of its own for the"
            " library. --on-existing set-aside cannot rename a mount point."
        )
        return Check("target", _FAILURE, f"{name} is a mount point", advice)
    if there.missing:
        advice = "Remove it, or give --on-existing set-aside."
        found = f"a part of a {name} is there: {some(there.missing)}"
        return Check("target", _FAILURE, found, advice)
    found = f"a {name} is there already"
    if there.unchecked:
        found += f"; databases not checked: {some(there.unchecked)}"
    advice = "A pull leaves it as it is; --on-existing set-aside puts the source's in its place."
    return Check("target", _WARNING, found, advice)
