"""The owner of arriving files: as in the source, or one owner for all."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.tree.manifest import Entry

KEEP = "keep"
OWNER_ACCESS = 0o700
_OWNER = re.compile(r"(\d{1,10}):(\d{1,10})")
_MAX_ID = 2**32 - 2
_VARIABLES = (("PLEX_UID", "PLEX_GID", "1000"), ("PUID", "PGID", "911"))
"""What the official and linuxserver's images read, and their default for one that is missing."""
_CAPABILITIES = {0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER"}


@dataclass(frozen=True)
class Ownership:
    """Maps the source's owners to the target's."""

    fixed: tuple[int, int] | None
    """The uid and gid of everything; None: as in the source."""
    privileged: bool
    """May give files away and enter any folder."""

    def of(self, entry: Entry) -> tuple[int, int]:
        """Return the uid and gid that ``entry`` has on the target."""
        return self.fixed or (entry.uid, entry.gid)

    def mode_of(self, folder: Entry) -> int:
        """Return a folder's mode until publication: without privileges, its owner keeps access."""
        return folder.mode if self.privileged else folder.mode | OWNER_ACCESS

    def __str__(self) -> str:
        """Return the value of the option."""
        return KEEP if self.fixed is None else f"{self.fixed[0]}:{self.fixed[1]}"


def plex_owner(environment: Mapping[str, str]) -> str | None:
    """Return ``UID:GID`` as Plex's container image is given them; None if it is not.

    The image's start script changes the owner of everything, for minutes, if it finds another one.

    Raises:
        ConfigurationError: both pairs are given, and they differ.
    """
    given: dict[str, str] = {}
    for uid_name, gid_name, usual in _VARIABLES:
        if uid_name in environment or gid_name in environment:
            uid, gid = environment.get(uid_name), environment.get(gid_name)
            given[f"{uid_name} and {gid_name}"] = f"{uid or usual}:{gid or usual}"
    if len(set(given.values())) > 1:
        pairs = ", ".join(f"{names} are {owner}" for names, owner in given.items())
        raise ConfigurationError(
            f"two different owners are given: {pairs}",
            hint="Keep the pair that your Plex image reads, or give --owner.",
        )
    return next(iter(given.values()), None)


def choose_ownership(option: str | None) -> Ownership:
    """Return the owner by ``--owner``; without it, the source's if allowed, otherwise our own.

    Raises:
        ConfigurationError: it cannot be read, or needs capabilities that we lack.
    """
    mine = (os.geteuid(), os.getegid())
    privileged = _is_privileged()
    if option is None:
        return Ownership(None if privileged else mine, privileged)
    fixed = None if option == KEEP else _parse(option)
    if not privileged and fixed != mine:
        raise ConfigurationError(
            f"--owner {option} needs the capabilities {', '.join(_CAPABILITIES.values())}",
            hint=f"Run as root with them, or leave --owner out: everything is {mine[0]}:{mine[1]} "
            "then.",
        )
    return Ownership(fixed, privileged)


def _parse(option: str) -> tuple[int, int]:
    found = _OWNER.fullmatch(option)
    if found is None or max(int(found[1]), int(found[2])) > _MAX_ID:
        raise ConfigurationError(
            f"the owner has to be UID:GID in numbers, or keep, not {option!r}",
            hint="It comes from --owner, PLEX_UID and PLEX_GID, or PUID and PGID.",
        )
    return int(found[1]), int(found[2])


def _is_privileged() -> bool:
    """Whether the effective capabilities (capabilities(7)) hold all that ownership needs."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("CapEff:"):
                effective = int(line.split()[1], 16)
                return all(effective >> bit & 1 for bit in _CAPABILITIES)
    return False
