"""The user and group that Plex in the pod runs as, and that own all files there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLES = (("PLEX_UID", "PLEX_GID"), ("PUID", "PGID"))
"""Pairs by which a container's environment names the owner: for Plex's image, linuxserver's."""
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_LARGEST = (1 << 31) - 1
"""Largest runAsUser that Kubernetes takes."""
_IMAGES_OWNER = 1000, 1000
"""The owner that Plex's image gives to its files, unless the environment names another."""


def choose_owner(
    of_files: tuple[int, int], environment: Mapping[str, str]
) -> tuple[tuple[int, int], str]:
    """Return the owner of all files in the pod, and where it is from, for people.

    Plex does not run as root in its image, so root is replaced by the image's own user.

    Args:
        of_files: user and group that own the files now.
        environment: variables of Plex's container; none without a container.
    """
    for names in _VARIABLES:
        uid, gid = (_number(environment.get(name, "")) for name in names)
        if uid and gid is not None:
            return (uid, gid), f"`{names[0]}` and `{names[1]}` of Plex's container"
    if of_files[0]:
        return of_files, "the library's files"
    return _IMAGES_OWNER, "Plex's image, because root owns the library's files"


def _number(text: str) -> int | None:
    number = int(text) if _NUMBER.fullmatch(text) else None
    return None if number is None or number > _LARGEST else number
