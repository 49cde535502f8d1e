"""What would keep a move onto this volume from ending well: asked of the agent, looked at here.

Nothing is written, and nothing is stopped.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from initpuller.volume.filesystem import network_filesystem
from initpuller.volume.wholeness import what_is_missing
from initpuller.wire.backoff import IDLE_SECONDS, Retrier
from shared.checks import Check, Outcome, size, some
from shared.memberpath import check_root_name
from shared.plexversion import find_version

if TYPE_CHECKING:
    from shared.pairing import Pairing
    from shared.protocol import LibraryReport, MediaFolder

_PASS, _WARNING, _FAILURE = Outcome.PASS, Outcome.WARNING, Outcome.FAILURE
_AN_ENTRY = 4096
"""Bytes that an entry may take beside its content: a block of a folder, or a file's last one."""


class VersionPolicy(Enum):
    """What it means that the pod's Plex is older than the source's."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True)
class PreflightOptions:
    """What is asked, and about which pod."""

    pairing: Pairing
    target: str
    plex_version: str
    """Of the pod's Plex, or its image's tag; empty if nobody said."""
    policy: VersionPolicy
    retrier: Retrier = field(default_factory=Retrier)
    idle: float = IDLE_SECONDS
    """Seconds without a byte after which the agent counts as stalled."""


@dataclass(frozen=True)
class Volume:
    """What there is for the library."""

    free_bytes: int
    free_inodes: int | None
    """None where the filesystem makes them as it goes."""
    network: str | None
    """Type of the filesystem, if that is one over the network."""
    existing: list[str] | None
    """What is missing in a library that is there already; None if there is none."""


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
    report = asyncio.run(_ask(options))
    check_root_name(os.fsencode(report.library.name))
    target = [
        check_version(report.plex_version, options.plex_version, options.policy),
        *check_volume(report, look_at_volume(options.target, report.library.name)),
        check_media(report.media, _there(report.media)),
    ]
    return Preflight(source=report.checks, target=target)


async def _ask(options: PreflightOptions) -> LibraryReport:
    from initpuller.wire.client import AgentClient  # noqa: PLC0415 - takes long to import

    async with AgentClient(options.pairing, options.idle) as client:
        return await options.retrier.run("the preflight", client.library)


def _there(media: list[MediaFolder]) -> list[MediaFolder]:
    return [each for each in media if os.path.isdir(each.path)]


def look_at_volume(target: str, name: str) -> Volume:
    """The volume mounted at ``target``, and the library called ``name`` on it."""
    about, library = os.statvfs(target), os.path.join(target, name)
    return Volume(
        free_bytes=about.f_bavail * about.f_frsize,
        free_inodes=about.f_favail if about.f_files else None,
        network=network_filesystem(target),
        existing=what_is_missing(library) if os.path.lexists(library) else None,
    )


def check_version(source: str | None, target: str, policy: VersionPolicy) -> Check:
    """The database's schema goes forward by itself, and never back."""
    title = "version"
    ours, theirs = find_version(target), find_version(source or "")
    if theirs is None or ours is None:
        whose = "the source's" if theirs is None else "the pod's"
        return Check(
            title,
            _WARNING,
            f"{whose} Plex version is not known",
            "Give --plex-version or PLEXODUS_PLEX_VERSION, the tag of the image: it must not be"
            " older than the source.",
        )
    if ours == theirs:
        return Check(title, _PASS, f"{ours} on both sides")
    if ours > theirs:
        return Check(
            title,
            _WARNING,
            f"the pod's {ours} is newer than the source's {theirs}",
            "Plex will migrate its database at the first start: give it time, with no liveness"
            f" probe; or begin with {theirs} and upgrade later.",
        )
    return Check(
        title,
        _FAILURE if policy is VersionPolicy.REFUSE else _WARNING,
        f"the pod's {ours} is older than the source's {theirs}",
        f"Use the image's tag {theirs} or a newer one: an older Plex cannot read the database.",
    )


def check_volume(report: LibraryReport, volume: Volume) -> list[Check]:
    """Room, locks, and whether something is in the way."""
    needed = report.content_bytes + report.entries * _AN_ENTRY
    space = Check("space", _PASS, f"{size(volume.free_bytes)} free, {size(needed)} at most needed")
    if needed > volume.free_bytes:
        advice = "Enlarge the volume, or leave something out: --exclude-regenerable."
        space = Check("space", _FAILURE, space.found, advice)
    inodes = Check("inodes", _PASS, "made as they are needed")
    if volume.free_inodes is not None:
        found = f"{volume.free_inodes} free, {report.entries} needed"
        inodes = Check("inodes", _PASS, found)
        if report.entries > volume.free_inodes:
            advice = "Make the volume with more of them (mkfs -N), or larger."
            inodes = Check("inodes", _FAILURE, found, advice)
    locks = Check("filesystem", _PASS, "a local one, or a block device's")
    if volume.network is not None:
        advice = "Use a block volume (iSCSI, Ceph RBD, Longhorn, local) for /config."
        found = f"{volume.network}: SQLite's databases do not survive on a network filesystem"
        locks = Check("filesystem", _WARNING, found, advice)
    return [space, inodes, locks, _existing(report.library.name, volume.existing)]


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
        " add the new folders to each library before the first scan, with automatic emptying of"
        " trash off.",
    )


def _existing(name: str, missing: list[str] | None) -> Check:
    if missing is None:
        return Check("target", _PASS, f"there is no {name} yet")
    if missing:
        advice = "Remove it, or give --on-existing set-aside."
        return Check("target", _FAILURE, f"a part of a {name} is there: {some(missing)}", advice)
    advice = "A pull leaves it as it is; --on-existing set-aside puts the source's in its place."
    return Check("target", _WARNING, f"a {name} is there already", advice)
