"""The volumes with the media: those that the administrator has named, and those still missing."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.plan.options import can_be_mounted_at, is_below, is_mountable
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.plan.options import MediaVolume
    from shared.wire.protocol import MediaFolder


@dataclass(frozen=True)
class MediaMount:
    """A mount of Plex's container."""

    name: str
    old: str
    new: str
    claim: str
    """Empty if nobody has said which."""
    sections: tuple[str, ...]
    """Plex's libraries that have media there."""


def media_mounts(
    folders: Sequence[MediaFolder], volumes: Sequence[MediaVolume]
) -> list[MediaMount]:
    """Return the mounts for all ``folders``. One without a volume gets a mount without a claim.

    Raises:
        ConfigurationError: If a folder cannot be mounted at its own path.
    """
    sections: dict[str, set[str]] = {volume.old: set() for volume in volumes}
    named = {volume.old: volume for volume in volumes}
    for folder in folders:
        path = posixpath.normpath(folder.path)
        above = [old for old in named if is_below(path, old)]
        if not is_mountable(path) or not (above or can_be_mounted_at(path)):
            raise ConfigurationError(
                f"the folder {path!r} of the library {folder.section!r} cannot be mounted there",
                hint="Give --media with another path in the pod, or change the folder in Plex.",
            )
        sections.setdefault(max(above, key=len, default=path), set()).add(folder.section)
    mounts = []
    for number, (old, names) in enumerate(sorted(sections.items()), start=1):
        volume = named.get(old)
        new, claim = (volume.new, volume.claim) if volume else (old, "")
        mounts.append(MediaMount(f"media-{number}", old, new, claim, tuple(sorted(names))))
    return mounts


def mappings(mounts: Sequence[MediaMount]) -> list[MediaMount]:
    """Return the mounts whose paths the puller has to know; none if no path changes.

    Mounts that keep their path count, too: they may be below one that does not.

    Raises:
        ConfigurationError: If a path cannot stand in a list of OLD=NEW.
    """
    if all(mount.old == mount.new for mount in mounts):
        return []
    for mount in mounts:
        if "=" in mount.old + mount.new:
            raise ConfigurationError(
                f"a path with '=' cannot change: {mount.old} to {mount.new}",
                hint="Mount all media at their paths of today.",
            )
    return [mount for mount in mounts if mount.sections]
