"""The volumes with the media: those that the administrator has named, and those still missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        ConfigurationError: If a path cannot stand in a values file.
    """
    sections: dict[str, set[str]] = {volume.old: set() for volume in volumes}
    for folder in folders:
        if not folder.path.isprintable() or not folder.path.startswith("/"):
            raise ConfigurationError(
                f"the folder {folder.path!r} of the library {folder.section!r} cannot be mounted",
                hint="Give it a name without control characters in Plex, then run this again.",
            )
        above = [volume.old for volume in volumes if _is_below(folder.path, volume.old)]
        sections.setdefault(max(above, key=len, default=folder.path), set()).add(folder.section)
    named = {volume.old: volume for volume in volumes}
    mounts = []
    for number, (old, names) in enumerate(sorted(sections.items()), start=1):
        volume = named.get(old)
        new, claim = (volume.new, volume.claim) if volume else (old, "")
        mounts.append(MediaMount(f"media-{number}", old, new, claim, tuple(sorted(names))))
    return mounts


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")
