"""Who owns what arrives: as in the source, or one owner for all."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.manifest import Entry

KEEP = "keep"
_OWNER = re.compile(r"(\d{1,10}):(\d{1,10})")
_MAX_ID = 2**32 - 2
_USUAL = "1000"
_CAPABILITIES = {0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER"}


@dataclass(frozen=True)
class Ownership:
    """Maps the source's owners to the target's."""

    fixed: tuple[int, int] | None
    """The uid and gid of everything; None: as in the source."""
    privileged: bool
    """May give files away and enter any folder."""

    def of(self, entry: Entry) -> tuple[int, int]:
        """The uid and gid that ``entry`` has on the target."""
        return self.fixed or (entry.uid, entry.gid)

    def __str__(self) -> str:
        """As the option has it."""
        return KEEP if self.fixed is None else f"{self.fixed[0]}:{self.fixed[1]}"


def plex_owner(environment: Mapping[str, str]) -> str | None:
    """``UID:GID`` as Plex' image is told them (PLEX_UID, PLEX_GID; 1000 each); None: it is not.

    Its start script changes the owner of everything, for minutes, where it finds another one.
    """
    uid, gid = environment.get("PLEX_UID"), environment.get("PLEX_GID")
    if uid is None and gid is None:
        return None
    return f"{uid or _USUAL}:{gid or _USUAL}"


def choose_ownership(option: str | None) -> Ownership:
    """What ``--owner`` asks for; without it: keep where we may, our own where we may not.

    Raises:
        ConfigurationError: it cannot be read, or we may not do that.
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
            f"--owner, or PLEX_UID and PLEX_GID, are numbers, or keep; not {option!r}"
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
